package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the output's configuration.
type Config struct {
	Path     string `yaml:"path" required:"true" doc:"The database: an absolute path on a local file system. It is made if it is missing, its folder is not." example:"/var/lib/stacktrail/events.db"`
	KeepDays int    `yaml:"keep_days" min:"0" doc:"Events older than this many days are deleted; 0 keeps them for ever."`
}

// Spec describes the output to the agent. The table knows events by their ids.
var Spec = plugins.OutputSpec("sqlite", "Write events into a table of a SQLite database.", Config{}, New).Safe().ByID()

// Validate finds what the types cannot say.
func (c Config) Validate() error {
	if c.Path != "" && !filepath.IsAbs(c.Path) {
		return conf.KeyError{Key: "path", Err: fmt.Errorf("%q is no absolute path", c.Path)}
	}
	return nil
}

// WrittenPaths lets the agent refuse to follow what it writes.
func (c Config) WrittenPaths() []string { return []string{c.Path, c.Path + "-wal", c.Path + "-shm"} }

// DefaultLinger collects events for a second: a transaction waits for the disk.
func (Config) DefaultLinger() time.Duration { return time.Second }

// New builds the output. The database is opened by Open.
func New(c Config, env plugins.Env) (plugins.Output, error) {
	return &output{cfg: c, log: env.Log, count: env.Count, enc: env.Encoder(schema.EncodeOptions{EventID: true}), lock: make(chan struct{}, 1)}, nil
}

type output struct {
	cfg   Config
	log   *slog.Logger
	count func(name, reason string, n int64)
	enc   *schema.Encoder

	lock chan struct{} // guards all below; a channel, so that waiting for it ends with a context
	db   *database     // nil: it is to be opened again
	json []byte
}

// Open opens the database and makes its table.
func (o *output) Open(ctx context.Context) (err error) {
	o.db, err = open(ctx, o.cfg.Path)
	return err
}

// Close closes the database.
func (o *output) Close() error {
	if o.db == nil {
		return nil
	}
	return o.db.Close()
}

// Write writes the events in one transaction. Those that are in the table already stay as they are.
func (o *output) Write(ctx context.Context, events []*event.Event) error {
	select {
	case o.lock <- struct{}{}:
		defer func() { <-o.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := o.ready(ctx); err != nil {
		return err
	}
	refused, err := o.insert(ctx, events)
	switch {
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case err != nil:
		if !passing(err) {
			o.letGo() // whatever it has: a fresh start may do
		}
		return fmt.Errorf("writing to %s: %w", o.cfg.Path, err)
	case len(refused) > 0:
		return &plugins.PartialError{Failed: refused}
	}
	return nil
}

// ready opens the database if it is not open, or if its file was moved away: SQLite would go on writing to that.
func (o *output) ready(ctx context.Context) (err error) {
	if o.db != nil && !o.db.standsAt(o.cfg.Path) {
		o.log.Warn("database was moved or removed, opening it anew", "path", o.cfg.Path)
		o.letGo()
	}
	if o.db == nil {
		o.db, err = open(ctx, o.cfg.Path)
	}
	return err
}

func (o *output) letGo() {
	if err := o.db.Close(); err != nil {
		o.log.Warn("database was not closed well", "path", o.cfg.Path, "error", err)
	}
	o.db = nil
}

// insert writes the events and deletes what is too old. An event that the table refuses is refused for good.
func (o *output) insert(ctx context.Context, events []*event.Event) (refused map[int]error, err error) {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // says that it is done already when it is
	insert, err := tx.PrepareContext(ctx, insertSQL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = insert.Close() }()
	refused = map[int]error{}
	known := int64(0)
	for i, e := range events {
		o.json = o.enc.Append(o.json[:0], e)
		result, err := insert.ExecContext(ctx, row(e, o.json)...)
		switch {
		case err != nil && isRefusal(err):
			refused[i] = &plugins.PermanentError{Err: fmt.Errorf("the table refuses it: %w", err)}
			continue
		case err != nil:
			return nil, err
		}
		if n, err := result.RowsAffected(); err == nil && n == 0 {
			known++
		}
	}
	expired, err := o.expire(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	o.note("known", known)
	o.note("expired", expired)
	return refused, nil
}

func (o *output) note(name string, n int64) {
	if n > 0 {
		o.count(name, "", n)
	}
}
