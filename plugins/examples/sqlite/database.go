package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const schemaSQL = `
CREATE TABLE IF NOT EXISTS events (
	id         TEXT PRIMARY KEY,
	timestamp  TEXT NOT NULL, -- UTC; of an event without one, when it was read
	service    TEXT,
	method     TEXT,
	path       TEXT,
	status     INTEGER,
	duration   REAL,          -- seconds
	project_id TEXT,
	user_id    TEXT,
	client     TEXT,
	event      TEXT NOT NULL  -- all of it, as JSON
);
CREATE INDEX IF NOT EXISTS events_timestamp ON events (timestamp);`

// Nothing but a known id is passed over: INSERT OR IGNORE would also pass over what another constraint of the table refuses.
const insertSQL = `INSERT INTO events (id, timestamp, service, method, path, status, duration, project_id, user_id, client, event)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`

const expireSQL = `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE timestamp < ? ORDER BY timestamp LIMIT ?)`

// timeLayout has a fixed width, so that texts sort as times do. SQLite's date functions read it.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// database is an open database and the file that it is.
type database struct {
	*sql.DB
	file os.FileInfo
}

// open opens the database, makes the table if there is none, and finds out whether events fit into it.
func open(ctx context.Context, path string) (_ *database, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening database %s: %w", path, withoutPath(err))
		}
	}()
	info, err := stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	}
	// A write waits half a second for another program's lock: then the agent tries again, as often as it takes. WAL lets others read all
	// the time. synchronous FULL: what Write was told is safe outlives the power.
	const options = "?_pragma=busy_timeout(500)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	handle, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String()+options)
	if err != nil {
		return nil, err
	}
	handle.SetMaxOpenConns(1)
	d := &database{handle, info}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// stat looks at the file, and makes it where there is none: SQLite itself would have everybody read it.
func stat(path string) (os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o640)
	switch {
	case err == nil:
		if err := f.Close(); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrExist):
		return nil, err
	}
	return os.Stat(path)
}

func (d *database) prepare(ctx context.Context) error {
	if _, err := d.ExecContext(ctx, schemaSQL); err != nil {
		return err
	}
	insert, err := d.PrepareContext(ctx, insertSQL)
	if err != nil {
		return fmt.Errorf("there is a table named events of another kind: %w", err)
	}
	return insert.Close()
}

// standsAt reports whether the file is still at its path.
func (d *database) standsAt(path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, d.file)
}

// withoutPath takes the path out of an error that has it already.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// row is what an event has for the columns.
func row(e *event.Event, json []byte) []any {
	var status, duration any
	if e.Has&event.HasStatus != 0 {
		status = e.Status
	}
	if e.Has&event.HasDuration != 0 {
		duration = e.Duration.Seconds()
	}
	at := e.Time
	if b := e.Batch(); at.IsZero() && b != nil {
		at = b.ReadAt
	}
	return []any{
		e.ID(), at.UTC().Format(timeLayout), text(e.Service), text(e.Method), text(e.Path), status, duration,
		text(e.ProjectID), text(e.UserID), text(e.Client), event.View(json),
	}
}

// text is a column's value: NULL for what is absent, and nothing that readers of the database would trip over.
func text(s string) any {
	if s == "" {
		return nil
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// mostExpired is how many old events one transaction deletes at most, so that a shorter keep_days stops nobody.
const mostExpired = 5000

// expire deletes what is too old.
func (o *output) expire(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	if o.cfg.KeepDays == 0 {
		return 0, nil
	}
	end := time.Now().UTC().AddDate(0, 0, -o.cfg.KeepDays).Format(timeLayout)
	result, err := tx.ExecContext(ctx, expireSQL, end, mostExpired)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// code returns SQLite's primary result code.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return sqlite3.SQLITE_OK
}

// isRefusal reports whether the event itself is what SQLite has something against: a constraint, a type, its size. Every other error is
// one of the database, a damaged one included: no event is to blame for it, so all of them wait until somebody has mended it.
func isRefusal(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return true
	}
	return false
}

// passing reports whether an error says nothing against the open database: another program writes, or the disk is full.
func passing(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT:
		return true
	}
	return false
}
