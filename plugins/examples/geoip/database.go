package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/oschwald/maxminddb-golang/v2"
)

// record is what is read of the databases' records. Decoding one leaves what it has not: so one value collects from several databases.
type record struct {
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	City struct {
		Names struct {
			English string `maxminddb:"en"`
		} `maxminddb:"names"`
	} `maxminddb:"city"`
	ASN          uint32 `maxminddb:"autonomous_system_number"`
	Organization string `maxminddb:"autonomous_system_organization"`
}

// database is one file, mapped into memory, so that the instances of all lanes share it. It belongs to one instance, which has one
// caller at a time: a file is only let go of between lookups.
type database struct {
	path string
	log  *slog.Logger
	fail func(key string, err error)

	reader *maxminddb.Reader // nil: nothing is open
	seen   os.FileInfo       // the file that was opened or tried last; nil: it was not there
	said   bool              // the agent knows that something is wrong
}

// open maps the file.
func (d *database) open() error {
	info, err := os.Stat(d.path)
	if err != nil {
		d.seen = nil
		return fmt.Errorf("opening database %s: %w", d.path, withoutPath(err))
	}
	d.seen = info
	r, err := maxminddb.Open(d.path)
	if err != nil {
		return fmt.Errorf("opening database %s: %w", d.path, withoutPath(err))
	}
	_ = d.close() // of a mapping that was only read
	d.reader = r
	return nil
}

// withoutPath takes the path out of an error that has it already.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

func (d *database) close() (err error) {
	if d.reader != nil {
		err = d.reader.Close()
		d.reader = nil
	}
	return err
}

// refresh opens the file again when another one stands in its place, and reports whether it did. Until that can be read, the one before it
// serves.
func (d *database) refresh() (changed bool) {
	info, err := os.Stat(d.path)
	if err == nil && d.seen != nil && os.SameFile(info, d.seen) && info.Size() == d.seen.Size() && info.ModTime().Equal(d.seen.ModTime()) {
		return false
	}
	if err != nil && d.seen == nil {
		return false // known already
	}
	if err := d.open(); err != nil {
		d.trouble(err)
		return false
	}
	d.log.Info("database was opened", "path", d.path, "type", d.reader.Metadata.DatabaseType, "built", d.reader.Metadata.BuildTime())
	if d.said {
		d.fail("database "+d.path, nil)
		d.said = false
	}
	return true
}

// trouble says once what is wrong with the file, and shows it until another one is open.
func (d *database) trouble(err error) {
	if !d.said {
		d.log.Warn("database cannot be read", "path", d.path, "error", err, "the_last_one_serves_on", d.reader != nil)
	}
	d.said = true
	d.fail("database "+d.path, err)
}

var errClosed = errors.New("the database is not open")

// lookup adds what the database has of an address to r.
func (d *database) lookup(addr netip.Addr, r *record) (found bool, err error) {
	if d.reader == nil {
		return false, errClosed
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading %s: %v", d.path, p)
			_ = d.close() // what a fault has left of the reader is not used again
		}
		if err != nil && !d.said {
			d.trouble(err)
		}
	}()
	result := d.reader.Lookup(addr)
	if !result.Found() {
		return false, result.Err()
	}
	return true, result.Decode(r)
}
