package formats

import "strings"

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
	if !ok || codes == "" || codes[0]-'0' > 9 {
		return t, false
	}
	t.connErr, codes, _ = cutAt(codes, '/')
	t.sslErr, codes, _ = cutAt(codes, '/')
	t.certErr, codes, _ = cutAt(codes, '/')
	t.caErr, t.resumed, ok = cutAt(codes, '/')
	if !ok || strings.IndexByte(t.resumed, '/') >= 0 || !allDigits(t.connErr) {
		return t, false
	}
	t.sni, names, _ = cutAt(names, '/')
	t.version, t.cipher, ok = cutAt(names, '/')
	return t, ok && strings.IndexByte(t.cipher, '/') < 0 && strings.IndexByte(t.sni, ' ') < 0 && strings.IndexByte(t.version, ' ') < 0 && strings.IndexByte(t.cipher, ' ') < 0
}

// tlsAttributes writes what is known.
func (p *Parser) tlsAttributes(o object, t *tlsTail) object {
	add := func(k *key, v string) {
		if v != "" && v != "-" && v != "0" {
			o = p.said(o, k, v)
		}
	}
	add(&haproxyKeys.connectionError, t.connErr)
	add(&haproxyKeys.tlsError, t.sslErr)
	add(&haproxyKeys.clientCertificateError, t.certErr)
	add(&haproxyKeys.clientCAError, t.caErr)
	if t.resumed == "1" {
		o = o.yes(&haproxyKeys.tlsResumed)
	}
	add(&haproxyKeys.sni, t.sni)
	add(&haproxyKeys.tlsVersion, t.version)
	add(&haproxyKeys.tlsCipher, t.cipher)
	return o
}
