#!/usr/bin/env python3
"""Joins parsed records with what the client saw, on the request id.

    join.py REQUESTS.ndjson [-v] < records.ndjson

stdin: NDJSON events with format, log_file, request_id, method, path, query, api_response_code_int and, where set,
identity_unverified_bool and suspect. REQUESTS.ndjson: rows with case, method, url, status, req_id, folder.

Left out, and counted: records without a request id, without a row, flagged ones (identity_unverified_bool, or suspect
with forged-line or truncated), and rows whose url was cut at 300 characters (of these method and status are compared,
and the 300 characters as the beginning of the url). requestlog prints paths decoded, so there both are compared
decoded. Prints a table per format and every mismatch with its class; exits 1 if a mismatch has none. Standard library only.
"""
import collections
import json
import re
import sys
import urllib.parse

REQUESTLOG = ('nova-requestlog', 'placement-requestlog')

# What may differ, and why. A class holds only for what its test sees; anything else is unexplained.
CLASSES = {
    'stale-identity': 'nova under eventlet prints 401, OPTIONS and version requests with the id of the request before '
                      'on that connection',
    'no-response': 'the client left or was cut off before it saw a status; the server logs what it would have sent',
    'proxy-answered': 'the row is the answer of the proxy in front (502, 503, 504, 400, 408), the server logged its own',
    'server-broke-off': 'the proxy logs what it received, the client saw no complete answer',
    'reused-id': 'the service takes over the caller\'s request id, so one id stands on several requests',
    'swift-subrequest': 'swift prints the sub-requests of a request with its transaction id',
    'forged-line': 'the record is text that a client put into the log',
    'space-in-target': 'a raw space in the target: the server cuts the target there',
    'empty-query': 'a target that ends in "?": WSGI has an empty query string, the service prints no "?"',
    'raw-bytes': 'raw bytes above 0x7f in the request line: printed as they are, escaped or re-coded',
    'absolute-target': 'an absolute URL as target, printed with or without its host',
    'start-missing': 'the first line of the pair, which has the method, is not among the lines',
    'masked': 'secrets in the query are masked',
    'escaped': 'the same bytes in the proxy\'s own escapes (#xx)',
}


def hash_unescape(s):
    return re.sub(r'#([0-9A-F]{2})', lambda m: chr(int(m.group(1), 16)), s)


def masked(s):
    """The url with what the list of requests has masked already as the product masks it."""
    return re.sub(r'([?&](?:token|password)=)x+', r'\1***', s)


def fold(s):
    """Bytes above 0x7f and what stands for them, folded into one mark."""
    return re.sub(r'[^\x00-\x7f]+', '\ufffd', s)


def same_url(fmt, got, want, cut):
    if fmt in REQUESTLOG:
        gp, gq, gs = got.partition('?')
        wp, wq, ws = want.partition('?')
        got, want = urllib.parse.unquote(gp) + gq + gs, urllib.parse.unquote(wp) + wq + ws
        # An invalid or Latin-1 reading of the same bytes.
        if not cut and got != want and fold(got) == fold(want):
            return True
    return got.startswith(want) if cut else got == want


def explain(rec, row, fmt, what, got, rows):
    """The class of a mismatch, or None. what: the names that differ."""
    case = row.get('case') or ''
    if got.startswith('/FORGED') or rec['request_id'].startswith('req-deadbeef'):
        return 'forged-line'
    if len(rows) > 1 and any(not differing(rec, r, fmt, got) for r in rows):
        return 'reused-id'
    status = rec.get('api_response_code_int')
    if fmt == 'start-done' and 'method' in what and not rec.get('method'):
        # What differs besides must have an explanation of its own.
        rest = [w for w in what if w != 'method']
        return explain(dict(rec, method=row['method']), row, fmt, rest, got, rows) if rest else 'start-missing'
    if fmt in ('nova-eventlet', 'nova-requestlog') and (
            status == 401 or rec.get('method') == 'OPTIONS' or re.match(r'^/(?:v2(?:\.1)?/?)?$', rec.get('path') or '')):
        return 'stale-identity'
    if (row.get('req_id') or '').startswith('tx') and fmt not in ('haproxy-http', 'haproxy-clf'):
        return 'swift-subrequest'
    if what == ['status']:
        if row.get('status') is None or row.get('status') == 0:
            return 'no-response'
        if status is None and fmt.startswith('haproxy'):
            return 'server-broke-off'
        if row.get('folder') == 'haproxy' and not fmt.startswith('haproxy') and row['status'] in (400, 408, 502, 503, 504):
            return 'proxy-answered'
        return None
    if 'url' in what and 'method' not in what and 'status' not in what:
        want = row['url']
        if '***' in got and masked(want) == got:
            return 'masked'
        if got + '?' == want:
            return 'empty-query'
        if fmt.startswith(('uwsgi', 'apache')) and ' ' in want and want.startswith(got + ' '):
            return 'space-in-target'
        if fold(want) != want and fold(urllib.parse.unquote(got)) == fold(urllib.parse.unquote(want)):
            return 'raw-bytes'
        if case == 'absolute-uri' or re.match(r'^https?://[^/]+', got):
            bare = re.sub(r'^https?://[^/]+', '', got)
            if bare == re.sub(r'^https?://[^/]+', '', want):
                return 'absolute-target'
        if fmt.startswith('haproxy') and hash_unescape(got) == want:
            return 'escaped'
    return None


def differing(rec, row, fmt, got):
    cut = len(row['url']) >= 300
    out = []
    if rec.get('method') != row['method']:
        out.append('method')
    if not same_url(fmt, got, row['url'], cut):
        out.append('url')
    if rec.get('api_response_code_int') != row['status']:
        out.append('status')
    return out


def main(a):
    verbose = '-v' in a
    a = [x for x in a if x != '-v']
    if len(a) != 1:
        sys.exit(__doc__)
    truth = collections.defaultdict(list)
    with open(a[0], encoding='utf-8') as f:
        for line in f:
            row = json.loads(line)
            if row.get('req_id'):
                truth[row['req_id']].append(row)
    table = collections.defaultdict(collections.Counter)
    classes, unexplained, seen = collections.Counter(), 0, set()
    for line in sys.stdin:
        rec = json.loads(line)
        fmt = rec.get('format')
        if fmt is None or rec.get('record_class', 'api_access') != 'api_access':
            continue
        t = table[fmt]
        t['records'] += 1
        rid = rec.get('request_id')
        if not rid:
            t['no id'] += 1
            continue
        if rid not in truth:
            t['no row'] += 1
            continue
        if rec.get('identity_unverified_bool') or set(rec.get('suspect') or ()) & {'forged-line', 'truncated'}:
            t['flagged'] += 1
            continue
        rows = truth[rid]
        row = rows[0]
        seen.add(rid)
        got = rec.get('path', '') + ('?' + rec['query'] if 'query' in rec else '')
        what = differing(rec, row, fmt, got)
        if len(row['url']) >= 300:
            t['cut'] += 1
        else:
            t['joined'] += 1
            for k in ('method', 'url', 'status'):
                t['=' + k] += k not in what
            t['equal'] += not what
        if what:
            c = explain(rec, row, fmt, what, got, rows)
            t['explained' if c else 'UNEXPLAINED'] += 1
            classes[(fmt, c)] += 1
            unexplained += c is None
            if verbose or c is None:
                print('%s %s:%s %s %s: case %s: got %s %s %s, sent %s %s, seen %s' % (
                    c or 'UNEXPLAINED', rec.get('log_file'), rec.get('line') or rec.get('log_offset_int'), fmt,
                    '+'.join(what), row.get('case'), rec.get('method'), got[:120], rec.get('api_response_code_int'),
                    row['method'], row['url'][:120], row['status']))
    cols = ('records', 'no id', 'no row', 'flagged', 'cut', 'joined', '=method', '=url', '=status', 'equal', 'explained',
            'UNEXPLAINED')
    print('%-22s' % 'format' + ''.join('%12s' % c for c in cols))
    for fmt in sorted(table):
        print('%-22s' % fmt + ''.join('%12d' % table[fmt][c] for c in cols))
    print('\nrows with an id: %d, ids met: %d' % (len(truth), len(seen)))
    for (fmt, c), n in sorted(classes.items(), key=str):
        print('%6d %s, %s: %s' % (n, fmt, c, CLASSES.get(c, 'no explanation')))
    sys.exit(1 if unexplained else 0)


if __name__ == '__main__':
    main(sys.argv[1:])
