package webtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/webtest"
)

func TestCertificatesHoldForWhatTheyAreMade(t *testing.T) {
	t.Parallel()
	a := webtest.NewAuthority(t)
	verify := func(raw []byte, host string, use x509.ExtKeyUsage) error {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Verify(x509.VerifyOptions{Roots: a.Pool, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	good := a.Server(time.Now().Add(time.Hour), "192.0.2.1", "collector.example.org").Certificate[0]
	old := a.Server(time.Now().Add(-time.Hour), "192.0.2.1").Certificate[0]
	for host, cert := range map[string][]byte{"192.0.2.1": good, "collector.example.org": good} {
		if err := verify(cert, host, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for host, cert := range map[string][]byte{"192.0.2.1": old, "other.example.org": good} {
		if verify(cert, host, x509.ExtKeyUsageServerAuth) == nil {
			t.Errorf("%s: holds", host)
		}
	}
	pair, err := tls.LoadX509KeyPair(a.Client("agent"))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(pair.Certificate[0], "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
}
