package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// readVhost takes the virtual host from the front of a line; sp is where the first space in HOST stands.
//
// apache-vhost is
//
//	VHOST:PORT HOST IDENT USER [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS SIZE["REFERER" "USER-AGENT"]
//
// Source: Debian's LogFormat vhost_combined, `%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"`. All else is as in
// apache-combined. A list of forwarded addresses has a comma where this has a port.
func (l *accessLine) readVhost(sp int) {
	name, rest := l.host[:sp], l.host[sp+1:]
	i := len(name) - 1
	for i > 0 && name[i]-'0' <= 9 {
		i--
	}
	if i < 1 || name[i] != ':' || strings.IndexByte(rest, ' ') >= 0 {
		return
	}
	port, ok := digits(name[i+1:])
	if !ok || port > 65535 {
		return
	}
	l.vhost, l.vport, l.host = name[:i], port, rest
}

// setVhost fills what only this format has.
func (p *Parser) setVhost(l *accessLine, e *event.Event) {
	e.Host = l.vhost
	o := p.newObject().number(&apacheKeys.port, l.vport)
	if e.Method == "" {
		o = p.said(o, &apacheKeys.request, l.request)
	}
	p.words = true
	p.end(o, e)
}

// apacheKeys are the names of Apache's attributes.
var apacheKeys = struct{ port, request key }{newKey("apache_port_int"), newKey("apache_request")}
