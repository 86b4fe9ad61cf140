#!/usr/bin/env python3
"""Reads access logs with its own expressions, apart from the parser, and writes golden data.

    count.py counts  DIR     lines and request lines per format, per file (JSON)
    count.py records DIR     one NDJSON record per request line, in file order
    count.py product DIR     the same records under the product's field names, for join.py
    count.py near    DIR     lines that look like a request line and are none, for reading by eye
    count.py check   DIR GOLDEN   fails unless `counts DIR` equals the file GOLDEN

A .gz file is read uncompressed. README.md and requests.ndjson are not logs. What each format means and how
doubtful lines were decided stands in golden/NOTES.md. Standard library only.
"""
import datetime
import gzip
import ipaddress
import json
import os
import re
import sys
import uuid

# --- pieces -------------------------------------------------------------------------------------------------

ANSI = re.compile(rb'(?:\x1b\[[0-9;]*m|\\x1b\[[0-9;]*m)+$')
OSLO = re.compile(
    rb'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3,4} (?P<pid>\d+) +(?P<level>[A-Z]+) (?P<logger>[A-Za-z_][\w.]*) '
    rb'\[(?P<ctx>[^\]]*)\] (?:\[instance: [^\]]*\] )?(?P<msg>.*)$', re.S)
# The request may hold quotes and the text ' status: ', so it reaches as far as the tail lets it.
EVENTLET = re.compile(rb'^(?P<client>\S*) "(?P<req>.*)" status: (?P<status>\d{3})(?P<sp> {1,2})len: (?P<len>\d+) '
                      rb'time: (?P<time>\d+\.\d+)$', re.S)
REQLOG = re.compile(rb'^(?P<client>.*?) "(?P<method>[A-Za-z]+) (?P<uri>.*)" status: (?P<status>\d{3}) '
                    rb'len: (?P<len>\d+|None|-) microversion: (?P<mv>\S+)(?: time: (?P<time>\d+\.\d+))?$', re.S)
UWSGI = re.compile(
    rb'^(?:\{address space usage: [^}]*\} \{rss usage: [^}]*\} )?\[pid: \d+\|app: -?\d+\|req: -?\d+/\d+\] '
    rb'(?P<client>.*?) \((?P<user>[^)]*)\) \{\d+ vars in \d+ bytes\} '
    rb'\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] (?P<method>\S*) (?P<uri>.*) => '
    rb'generated (?P<len>\d+) bytes in (?P<time>\d+) (?P<unit>msecs|micros) (?:via \S+ )?'
    rb'\((?P<proto>.*) (?P<status>-?\d+)\) \d+ headers in \d+ bytes \(\d+ switches on core \d+\)$', re.S)
START = re.compile(rb'^(?P<method>[A-Z]+) https?://\S.*$', re.S)
DONE = re.compile(rb'^https?://(?P<host>[^/?]*)(?P<uri>.*) returned with HTTP (?P<status>\d{3})$', re.S)
Q = rb'"((?:[^"\\]|\\.)*)"'
CLFDATE = rb'\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]'
COMBINED = re.compile(rb'^(\S+) \S+ \S+ ' + CLFDATE + rb' ' + Q + rb' (\d{3}) (\d+|-) ' + Q + rb' ' + Q + rb'$', re.S)
KOLLA = re.compile(rb'^(.+) \S+ \S+ ' + CLFDATE + rb' ' + Q + rb' (\d{3}) (\d+|-) (\d+) ' + Q + rb' ' + Q + rb'$', re.S)
REQID = re.compile(rb'^(\S+) \S+ \S+ \[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d{4}\] ' + Q +
                   rb' (\d{3}) (\d+|-) (\d+) ' + Q + rb' (\S+)$', re.S)
SYSLOG = re.compile(rb'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) \S+ haproxy\[\d+\]: (.*)$', re.S)
HAHTTP = re.compile(
    rb'^(?P<client>\S+):\d+ \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] \S+ \S+/\S+ '
    rb'-?\d+/-?\d+/-?\d+/-?\d+/(?P<ta>\+?-?\d+) (?P<status>-?\d+) \+?(?P<len>\d+) \S+ \S+ \S{4} '
    rb'\d+/\d+/\d+/\d+/\+?\d+ \d+/\d+ (?P<cap>(?:\{[^}]*\} )*)"(?P<rest>.*)$', re.S)
HATCP = re.compile(rb'^\S+:\d+ \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] \S+ \S+/\S+ '
                   rb'-?\d+/-?\d+/\+?-?\d+ \+?\d+ \S{2} \d+/\d+/\d+/\d+/\+?\d+ \d+/\d+$')
HACLF = re.compile(rb'^(?P<client>\S+) - - ' + CLFDATE + rb' "(?P<rest>.*)$', re.S)
HACLFREST = re.compile(
    rb'^(?P<req>.*)" (?P<status>-?\d+) \+?(?P<len>\d+) "" "" \d+ \d+ "[^"]*" "[^"]*" "[^"]*" '
    rb'-?\d+ -?\d+ -?\d+ -?\d+ (?P<ta>\+?-?\d+) \S{4} \d+ \d+ \d+ \d+ \+?\d+ \d+ \d+ ', re.S)
HACLFCUT = re.compile(rb'^(?P<req>.*)" (?P<status>-?\d+) \+?(?P<len>\d+) (?:"|$)', re.S)
REQUEST = re.compile(rb'^(?P<method>[A-Za-z]+) (?P<uri>\S.*?)(?: HTTP/\d\.\d)?$', re.S)
HEXID = re.compile(r'^(?:[0-9a-f]{32}|[0-9a-f]{64})$')
REQUUID = re.compile(rb'^req-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$')
APACHE_C = {ord('n'): 10, ord('t'): 9, ord('r'): 13, ord('b'): 8, ord('v'): 11, ord('f'): 12}


def text(b):
    """Bytes as a string; every byte that is no UTF-8 becomes one U+FFFD."""
    out, i = [], 0
    while i < len(b):
        try:
            out.append(b[i:].decode('utf-8'))
            break
        except UnicodeDecodeError as e:
            out.append(b[i:i + e.start].decode('utf-8') + '\ufffd')
            i += e.start + 1
    return ''.join(out)


def unescape_apache(b):
    """Undoes ap_escape_logitem once."""
    def one(m):
        s = m.group(1)
        if s[:1] == b'x' and len(s) == 3:
            return bytes([int(s[1:], 16)])
        return bytes([APACHE_C.get(s[0], s[0])])
    return re.sub(rb'\\(x[0-9a-fA-F]{2}|.)', one, b, flags=re.S)


def address(s):
    """The address in one list element, without port, brackets and quotes; None if it is none."""
    s = s.strip().strip('"')
    m = re.match(r'^\[([^\]]*)\](?::\d+)?$', s)
    if m:
        s = m.group(1)
    elif re.match(r'^\d+\.\d+\.\d+\.\d+:\d+$', s):
        s = s.rsplit(':', 1)[0]
    try:
        ipaddress.ip_address(s)
        return s
    except ValueError:
        return None


def client(b):
    for part in text(b).split(','):
        a = address(part)
        if a:
            return a
    return None


def ident(s):
    if HEXID.match(s):
        return s
    try:
        return s if str(uuid.UUID(s)) == s else None
    except ValueError:
        return None


def context(b):
    """request id, user id, project id of the bracket."""
    t = text(b).split(' ')
    if len(t) >= 2 and t[1].startswith('req-') and (t[0] in ('None', '') or t[0].startswith('req-')):
        rid, rest = t[1], t[2:]
    elif t[0].startswith('req-'):
        rid, rest = t[0], t[1:]
    else:
        return None, None, None
    return rid, ident(rest[0]) if rest else None, ident(rest[1]) if len(rest) > 1 else None


def put_uri(rec, b):
    p, q, s = b.partition(b'?')
    rec['path'] = text(p)
    if q:
        rec['query'] = text(s)


def put_request(rec, b):
    """A request line: METHOD TARGET [HTTP/x.y]. Anything else gives no method and no path."""
    m = REQUEST.match(b)
    if m and (m['uri'][:1] in (b'/', b'*') or b'://' in m['uri']):
        rec['method'] = text(m['method'])
        put_uri(rec, m['uri'])


def number(b):
    return int(b) if b and b.isdigit() else None


# --- one line -------------------------------------------------------------------------------------------------

def read_line(line, begun):
    """The record of a request line, or None. begun: the methods and times of first halves so far, by request id."""
    line = ANSI.sub(b'', line.rstrip(b'\r'))
    r = {}
    m = OSLO.match(line)
    if m:
        rid, user, project = context(m['ctx'])
        e = EVENTLET.match(m['msg'])
        q = None if e else REQLOG.match(m['msg'])
        if e:
            r['format'] = 'oslo-eventlet' if len(e['sp']) == 2 else 'nova-eventlet'
            put_request(r, e['req'])
        elif q:
            r['format'] = 'nova-requestlog' if q['time'] else 'placement-requestlog'
            r['method'] = text(q['method'])
            put_uri(r, q['uri'])
            e = q
        elif m['logger'].endswith((b'.wsgi', b'.middleware.fault')):
            return start_done(m, rid, user, project, begun)
        else:
            return None
        r['status'] = int(e['status'])
        r['request_id'], r['user_id'], r['project_id'] = rid, user, project
        r['client'] = client(e['client'])
        r['time'] = float(e['time']) if e['time'] else None
        r['size'] = number(e['len'])
        return r
    m = UWSGI.match(line)
    if m:
        r['format'] = 'uwsgi'
        if m['method'] not in (b'', b'-'):
            r['method'] = text(m['method'])
        if m['uri'] not in (b'', b'-'):
            put_uri(r, m['uri'])
        r['status'] = int(m['status'])
        dashed = m['method'] == b'-' and m['uri'] == b'-'
        r['client'] = None if dashed else client(m['client'])
        r['time'] = int(m['time']) / (1000 if m['unit'] == b'msecs' else 1000000)
        r['size'] = int(m['len'])
        return r
    m = SYSLOG.match(line)
    if m:
        return haproxy(m.group(1))
    m = REQID.match(line)
    if m:
        r = apache('apache-reqid', m.group(1), m.group(2), m.group(3), m.group(4), m.group(5))
        if m.group(7) != b'-':
            r['request_id'] = text(m.group(7))
        return r
    m = COMBINED.match(line)
    if m:
        return apache('apache-combined', *m.group(1, 2, 3, 4), None)
    m = KOLLA.match(line)
    if m:
        return apache('apache-kolla', *m.group(1, 2, 3, 4, 5))
    return None


def start_done(m, rid, user, project, begun):
    """The second line of a pair is the record; the first one knows the method and the time."""
    at = datetime.datetime.fromisoformat(m.string[:23].decode().replace(',', '.'))
    s = START.match(m['msg'])
    if s and rid:
        begun[rid] = (text(s['method']), at)
        return None
    d = DONE.match(m['msg'])
    if not d:
        return None
    r = {'format': 'start-done', 'status': int(d['status']), 'request_id': rid, 'user_id': user, 'project_id': project}
    put_uri(r, d['uri'] or b'/')
    if rid in begun:
        r['method'], start = begun.pop(rid)
        r['time'] = round((at - start).total_seconds(), 3)
    return r


def apache(name, who, req, status, size, micros):
    r = {'format': name}
    put_request(r, unescape_apache(req))
    r['status'] = int(status)
    r['client'] = client(who)
    r['time'] = int(micros) / 1000000 if micros else None
    r['size'] = number(size)
    return r


def haproxy(b):
    r = {}
    m = HAHTTP.match(b)
    if m:
        r['format'] = 'haproxy-http'
        rest = m['rest']
        end = rest.rfind(b'"')
        put_request(r, rest if end < 0 else rest[:end])
        for block in re.findall(rb'\{([^}]*)\}', m['cap'])[-1:]:
            for value in block.split(b'|'):
                if REQUUID.match(value):
                    r['captured_request_id'] = text(value)
        return ha_rest(r, m['client'], m['status'], m['len'], m['ta'])
    m = HACLF.match(b)
    if m:
        r['format'] = 'haproxy-clf'
        n = HACLFREST.match(m['rest']) or HACLFCUT.match(m['rest'])
        if n:
            put_request(r, n['req'])
            g = n.groupdict()
            return ha_rest(r, m['client'], g['status'], g['len'], g.get('ta'))
        put_request(r, m['rest'])
        return ha_rest(r, m['client'], None, None, None)
    if HATCP.match(b):
        return {'format': 'haproxy-tcp'}
    return None


def ha_rest(r, who, status, size, ta):
    if status is not None and int(status) >= 0:
        r['status'] = int(status)
    r['client'] = client(who)
    if ta is not None and int(ta) >= 0:
        r['time'] = int(ta) / 1000
    r['size'] = number(size)
    return r


# --- files ----------------------------------------------------------------------------------------------------

def files(root):
    for d, dirs, names in os.walk(root):
        dirs.sort()
        for n in sorted(names):
            p = os.path.join(d, n)
            rel = os.path.relpath(p, root)
            if rel not in ('README.md', 'requests.ndjson'):
                yield rel, p


def content(path):
    with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
        return f.read()


def physical(data):
    """(offset, line) of every physical line; the last one may lack its newline."""
    at = 0
    while at < len(data):
        end = data.find(b'\n', at)
        if end < 0:
            end = len(data)
        yield at, data[at:end]
        at = end + 1


def counts(root):
    out = {}
    for rel, p in sorted(files(root)):
        formats, n, begun = {}, 0, {}
        for _, line in physical(content(p)):
            n += 1
            r = read_line(line, begun)
            if r:
                formats[r['format']] = formats.get(r['format'], 0) + 1
        out[rel] = {'lines': n, 'formats': dict(sorted(formats.items()))}
    return out


def records(root):
    order = ('file', 'line', 'offset', 'format', 'method', 'path', 'query', 'status', 'request_id',
             'captured_request_id', 'client', 'user_id', 'project_id', 'time', 'size')
    for rel, p in sorted(files(root)):
        begun = {}
        for n, (at, line) in enumerate(physical(content(p)), 1):
            r = read_line(line, begun)
            if r:
                r.update(file=rel, line=n, offset=at)
                yield {k: r[k] for k in order if r.get(k) is not None}


NEAR = re.compile(rb'status: ?\d{3}|generated \d+ bytes|\[pid: \d+\||HTTP/\d\.\d|" \d{3} (?:\d+|-)|haproxy\[|\+0000\]')


def main(a):
    if len(a) < 2 or a[0] not in ('counts', 'records', 'product', 'near', 'check'):
        sys.exit(__doc__)
    w = sys.stdout
    if a[0] == 'counts':
        # One file a line, so that a difference shows the file.
        rows = [json.dumps(k) + ': ' + json.dumps(v) for k, v in counts(a[1]).items()]
        w.write('{\n' + ',\n'.join(rows) + '\n}\n')
    elif a[0] == 'records':
        for r in records(a[1]):
            w.write(json.dumps(r, ensure_ascii=False, separators=(',', ':')) + '\n')
    elif a[0] == 'product':
        for r in records(a[1]):
            r['log_file'] = r.pop('file')
            r['log_offset_int'] = r.pop('offset')
            if 'status' in r:
                r['api_response_code_int'] = r.pop('status')
            if 'captured_request_id' in r:
                r['request_id'] = r.pop('captured_request_id')
            w.write(json.dumps(r, ensure_ascii=False) + '\n')
    elif a[0] == 'near':
        for rel, p in sorted(files(a[1])):
            for n, (_, line) in enumerate(physical(content(p)), 1):
                if NEAR.search(line) and not read_line(line, {}):
                    s = text(line)
                    w.write('%s:%d %s\n' % (rel, n, s if len(s) < 400 else s[:200] + ' … ' + s[-180:]))
    else:
        with open(a[2], encoding='utf-8') as f:
            want = json.load(f)
        got = counts(a[1])
        bad = [k for k in sorted(set(want) | set(got)) if want.get(k) != got.get(k)]
        for k in bad:
            w.write('%s\n  golden %s\n  read   %s\n' % (k, want.get(k), got.get(k)))
        sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main(sys.argv[1:])
