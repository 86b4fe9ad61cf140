package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// swiftStorage finishes a line of swift's account, container and object servers, which looks like Apache's and is none.
//
// swift-storage is
//
//	PEER - - [02/Jan/2006:15:04:05 +0000] "METHOD PATH" STATUS SIZE "REFERER" "TRANSACTION" "USER-AGENT" SECONDS "INFO"[ PID POLICY]
//
// Source: swift/common/utils/logs.py, get_log_line. The time is the end, in UTC. No protocol. SIZE is the Content-Length. SECONDS has four
// decimals. REFERER is the proxy's request, METHOD URL; PEER is the proxy. The path is /DEVICE/PARTITION/ACCOUNT…, percent-encoded:
// undone once. PID and POLICY are missing in old releases.
func (p *Parser) swiftStorage(l *accessLine, e *event.Event, ref, txn, rest string) Verdict {
	ua, rest, ok := quoted(rest[1:])
	if !ok || !strings.HasPrefix(rest, " ") {
		return p.parts(swiftStorageLog, atTail, rest)
	}
	word, rest, ok := field(rest[1:])
	took, _, timed := seconds(word)
	if !ok || !timed || rest == "" || rest[0] != '"' {
		return p.parts(swiftStorageLog, atDuration, rest)
	}
	info, rest, ok := quoted(rest)
	if !ok {
		return p.parts(swiftStorageLog, atTail, rest)
	}
	pid, policy := "", ""
	if rest != "" {
		if pid, policy, ok = field(strings.TrimPrefix(rest, " ")); !ok {
			return p.parts(swiftStorageLog, atEnd, rest)
		}
		if _, ok = digits(pid); !ok || strings.IndexByte(policy, ' ') >= 0 {
			return p.parts(swiftStorageLog, atEnd, rest)
		}
	}
	if l.iso || !p.enabled(swiftStorageLog) {
		return Unparsed
	}
	p.agents(e, ref, ua)
	p.apacheCommon(l, e, swiftStorageLog, true)
	p.storageRequest(l, e)
	e.RequestID = present(txn)
	e.SetDuration(took)
	if l.hasSize {
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if n, ok := digits(pid); ok {
		e.SetProcessID(n)
	}
	p.fillSwift(e)
	o := p.newObject()
	if info != "-" && info != "" {
		o = p.said(o, &storageInfo, info)
	}
	if policy != "" && policy != "-" {
		o = p.said(o, &swiftKeys[swPolicy], policy)
	}
	p.end(o, e)
	return Access
}

// storageInfo is the name of the attribute of INFO.
var storageInfo = newKey("swift_additional_info")

// storageRequest fills what is not as in Apache's lines.
func (p *Parser) storageRequest(l *accessLine, e *event.Event) {
	e.TimestampBasis = basisEnd
	if m, target, ok := field(l.request); ok && isMethod(m) {
		e.Method = m
		e.Path, e.Query = splitTarget(p.percent(target))
	} else {
		request(e, p.unescape(l.request))
	}
}

// isStorageServer knows the processes that write swift-storage. Their lines begin as Apache's do: one that is cut can be told by
// the tag alone.
func isStorageServer(name string) bool {
	return name == "object-server" || name == "container-server" || name == "account-server"
}
