package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// vhost takes the virtual host from the front of a line.
//
// apache-vhost is
//
//	VHOST:PORT HOST IDENT USER [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS SIZE["REFERER" "USER-AGENT"]
//
// Source: Debian's LogFormat vhost_combined, `%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"`. All else is as in
// apache-combined. A list of forwarded addresses has a comma where this has a port.
func (p *Parser) vhost(l *apacheLine) {
	name, rest, ok := field(l.host)
	if !ok || strings.IndexByte(rest, ' ') >= 0 {
		return
	}
	i := len(name) - 1
	for i > 0 && name[i]-'0' <= 9 {
		i--
	}
	if i < 1 || name[i] != ':' {
		return
	}
	port, ok := digits(name[i+1:])
	if !ok || port > 65535 {
		return
	}
	l.vhost, l.vport, l.host = name[:i], port, rest
}

// setVhost fills what only this format has.
func (p *Parser) setVhost(l *apacheLine, e *event.Event) {
	e.Host = l.vhost
	a := number(append(p.attr(), `,"apache_port_int":`...), l.vport)
	if e.Method == "" {
		a = event.AppendString(append(a, `,"apache_request":`...), l.request)
	}
	p.done(a, e)
}
