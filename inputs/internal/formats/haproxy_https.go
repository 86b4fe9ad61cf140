package formats

import "strings"

// tlsTail is what option httpslog appends to a line of httplog, in its order.
//
// haproxy-https is haproxy-http and behind its request
//
//	FC_ERR/SSL_FC_ERR/SSL_C_ERR/SSL_C_CA_ERR/SSL_FC_IS_RESUMED SNI/VERSION/CIPHER
//
// Source: HAProxy doc/configuration.txt 8.2.5. Errors are numbers, the second one hexadecimal, 0 for none; resumed is 0 or 1; SNI,
// version and cipher are `-` where they are not known.
type tlsTail [8]string

// tlsResumed is the place of a bit among texts.
const tlsResumed = 4

// shortestTLS is how long the tail is at least, and the space before it.
const shortestTLS = 12

// read fills t; errors that are 0 it may leave out.
func (t *tlsTail) read(s string) bool {
	const none, behind = "0/0/0/0/", "//// //"
	s = strings.TrimPrefix(s, " ")
	k, from := 0, 0
	if strings.HasPrefix(s, none) {
		t[0], k, from = none[:1], tlsResumed, len(none)
	}
	for i := from; i < len(s); i++ {
		c := s[i]
		if c > '/' || c != '/' && c != ' ' {
			continue
		}
		if k == len(behind) || c != behind[k] {
			return false
		}
		t[k] = s[from:i]
		k, from = k+1, i+1
	}
	if k < len(behind) {
		return false
	}
	t[k] = s[from:]
	return allDigits(t[0])
}

// tlsAttributes writes what is known.
func (p *Parser) tlsAttributes(o object, t *tlsTail) object {
	for i, v := range t {
		switch {
		case i == tlsResumed:
			if v == "1" {
				o = o.yes(&haproxyKeys.tlsTail[i])
			}
		case v != "" && v != "-" && v != "0":
			o = p.said(o, &haproxyKeys.tlsTail[i], v)
		}
	}
	return o
}
