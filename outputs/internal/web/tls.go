package web

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// TLS is the section tls of an output that speaks HTTP. The zero value verifies servers with the system's authorities.
type TLS struct {
	CAFile     string `yaml:"ca_file" doc:"PEM file of the authorities that the server's certificate is verified with, instead of the system's."`
	CertFile   string `yaml:"cert_file" doc:"PEM file of the client's certificate with its chain; read again when it changes."`
	KeyFile    string `yaml:"key_file" doc:"PEM file of the client certificate's key."`
	ServerName string `yaml:"server_name" doc:"Name that the server's certificate must hold, where it is another than the URL's host."`
	SkipVerify bool   `yaml:"skip_verify" doc:"Accept any certificate: whoever stands in between can read all."`
}

// maxPEM is far above any bundle of authorities.
const maxPEM = 4 << 20

// Validate reads the files that are named: one that is missing or does not parse is a fault of its key.
func (t TLS) Validate() error {
	var errs []error
	fault := func(key string, err error) { errs = append(errs, conf.KeyError{Key: key, Err: err}) }
	if t.CAFile != "" {
		if _, err := t.authorities(); err != nil {
			fault("ca_file", err)
		}
		if t.SkipVerify {
			fault("skip_verify", errors.New("with skip_verify nothing is verified, ca_file would be without effect: remove one of them"))
		}
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		fault("cert_file", errors.New("a certificate needs its key: set key_file too"))
	case t.CertFile == "" && t.KeyFile != "":
		fault("key_file", errors.New("a key needs its certificate: set cert_file too"))
	case t.CertFile != "":
		if _, err := t.pair(); err != nil {
			key := "cert_file"
			if e := (*keyFileError)(nil); errors.As(err, &e) {
				key = "key_file"
			}
			fault(key, err)
		}
	}
	if err := checkValue(t.ServerName); err != nil {
		fault("server_name", errors.New("not a host name"))
	}
	return errors.Join(errs...)
}

// Config returns the configuration of a client: TLS 1.2 at least. It reads the files now; the client's certificate is read again when
// its file changes, and one that cannot be read then leaves the former in use.
func (t TLS) Config() (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.SkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if t.CAFile != "" {
		pool, err := t.authorities()
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
	}
	if t.CertFile != "" {
		c := &clientCert{files: t}
		if err := c.load(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.current(), nil }
	}
	return cfg, nil
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && info.Size() > maxPEM {
		err = errors.New("larger than any certificate")
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

func (t TLS) authorities() (*x509.CertPool, error) {
	data, err := readPEM(t.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	n := 0
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		n++
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading %s: certificate %d: %w", t.CAFile, n, err)
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, fmt.Errorf("reading %s: it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", t.CAFile)
	}
	return pool, nil
}

// keyFileError is a fault of the key and not of the certificate.
type keyFileError struct{ error }

func (t TLS) pair() (tls.Certificate, error) {
	cert, err := readPEM(t.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if b, _ := pem.Decode(cert); b == nil {
		return tls.Certificate{}, fmt.Errorf("reading %s: it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", t.CertFile)
	}
	key, err := readPEM(t.KeyFile)
	if err != nil {
		return tls.Certificate{}, &keyFileError{err}
	}
	if b, _ := pem.Decode(key); b == nil {
		return tls.Certificate{}, &keyFileError{fmt.Errorf("reading %s: it holds no key in PEM form (-----BEGIN PRIVATE KEY-----)", t.KeyFile)}
	}
	p, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading %s and %s: %w", t.CertFile, t.KeyFile, err)
	}
	return p, nil
}

// clientCert holds the client's certificate and follows its files.
type clientCert struct {
	files TLS

	mu   sync.Mutex // guards what follows
	pair *tls.Certificate
	seen [2]stamp // of the files when they were read last
}

type stamp struct {
	at   time.Time
	size int64
}

func (c *clientCert) stamps() (s [2]stamp) {
	for i, path := range []string{c.files.CertFile, c.files.KeyFile} {
		if info, err := os.Stat(path); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *clientCert) load() error {
	seen := c.stamps()
	p, err := c.files.pair()
	if err != nil {
		return err
	}
	c.pair, c.seen = &p, seen
	return nil
}

// current returns the certificate for a handshake. A pair of files that does not fit may be just being replaced: it is tried again at
// the next handshake.
func (c *clientCert) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stamps() != c.seen {
		_ = c.load() // the former one stays; the server says what it thinks of it
	}
	return c.pair
}
