package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// tlsTail is what option httpslog appends to a line of httplog.
//
// haproxy-https is haproxy-http and behind its request
//
//	FC_ERR/SSL_FC_ERR/SSL_C_ERR/SSL_C_CA_ERR/SSL_FC_IS_RESUMED SNI/VERSION/CIPHER
//
// Source: HAProxy doc/configuration.txt 8.2.5. Errors are numbers, the second one hexadecimal, 0 for none; resumed is 0 or 1; SNI,
// version and cipher are `-` where they are not known.
type tlsTail struct {
	connErr, sslErr, certErr, caErr, resumed string
	sni, version, cipher                     string
}

// haproxyTLS reads it.
func haproxyTLS(s string) (t tlsTail, ok bool) {
	if len(s) < 12 {
		return t, false
	}
	codes, names, ok := field(strings.TrimPrefix(s, " "))
	if !ok || strings.Count(codes, "/") != 4 || strings.Count(names, "/") != 2 || strings.IndexByte(names, ' ') >= 0 {
		return t, false
	}
	t.connErr, codes, _ = strings.Cut(codes, "/")
	t.sslErr, codes, _ = strings.Cut(codes, "/")
	t.certErr, codes, _ = strings.Cut(codes, "/")
	t.caErr, t.resumed, _ = strings.Cut(codes, "/")
	t.sni, names, _ = strings.Cut(names, "/")
	t.version, t.cipher, _ = strings.Cut(names, "/")
	_, ok = digits(t.connErr)
	return t, ok
}

// attributes appends what is known.
func (t *tlsTail) attributes(a []byte) []byte {
	add := func(key, v string) {
		if v != "" && v != "-" && v != "0" {
			a = event.AppendString(append(a, key...), v)
		}
	}
	add(`,"haproxy_connection_error":`, t.connErr)
	add(`,"haproxy_tls_error":`, t.sslErr)
	add(`,"haproxy_client_certificate_error":`, t.certErr)
	add(`,"haproxy_client_ca_error":`, t.caErr)
	if t.resumed == "1" {
		a = append(a, `,"haproxy_tls_resumed_bool":true`...)
	}
	add(`,"haproxy_sni":`, t.sni)
	add(`,"haproxy_tls_version":`, t.version)
	add(`,"haproxy_tls_cipher":`, t.cipher)
	return a
}
