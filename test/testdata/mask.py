#!/usr/bin/env python3
"""Copies log lines and masks tokens and passwords in them to the same length.

    mask.py SOURCE TARGET LIST   copies what LIST names: "file [first-last …]", 1-based physical lines,
                                 no range: the whole file; then the rows of SOURCE/requests.ndjson whose
                                 request id stands on a copied line
    mask.py < in > out           masks one stream
    mask.py --leaks DIR          names lines in which something would still be masked; exit 1 if any

A secret's bytes become 'x', nothing else changes: offsets, lengths and line ends stay. A .gz file is written anew
with no name and no time in it, so that two runs give the same bytes. Standard library only.
"""
import gzip
import io
import json
import os
import re
import sys

KEY = (rb'(?:[A-Za-z_-]*passw(?:or)?d|adminPass|admin_pass|[A-Za-z_-]*secret|auth_token|access_token|refresh_token|id_token'
       rb'|subject_token|token|temp_url_sig|signature|x-(?:auth|subject|service)-token)')
SECRETS = [
    # fernet tokens, whole
    re.compile(rb'(?P<s>gAAAA[A-Za-z0-9_=-]+)'),
    # key=value in a query, form or DEBUG line; %3D and = alike
    re.compile(rb'(?i)(?<![A-Za-z])' + KEY + rb'(?:=|%3D)(?P<s>[^&\s"\'<>;,()\[\]{}\\]+)'),
    # "key": "value" and 'key': 'value', plain or escaped once
    re.compile(rb'(?i)\\?["\']' + KEY + rb'\\?["\']\s*:\s*u?\\?["\'](?P<s>[^"\'\\]+)'),
    # header lines
    re.compile(rb'(?i)x-(?:auth|subject|service)-token:?\s+(?P<s>[^\s"\',;]+)'),
    re.compile(rb'(?i)authorization["\']?\s*:\s*["\']?(?:basic|bearer|aws4?)[ -](?P<s>[^\s"\',;]+)'),
    # user:password@host
    re.compile(rb'[a-z+]{2,20}://[^/\s:@"]*:(?P<s>[^/\s@"]+)@'),
    # an id that is the credential itself
    re.compile(rb'/v2\.0/tokens/(?P<s>[0-9a-f]{32})'),
    re.compile(rb'"token"\s*:\s*\{\s*"id"\s*:\s*"(?P<s>[^"]+)"'),
]
# What stands where a secret would and is none.
HARMLESS = re.compile(rb'^(?:\*+|x+|None|null|true|false|string|-)$')


def mask(line):
    for expr in SECRETS:
        def one(m):
            s = m.group('s')
            if HARMLESS.match(s):
                return m.group(0)
            a, b = m.start('s') - m.start(), m.end('s') - m.start()
            return m.group(0)[:a] + b'x' * len(s) + m.group(0)[b:]
        line = expr.sub(one, line)
    return line


def lines_of(path):
    with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
        return keep_ends(f.read())


def keep_ends(data):
    """Lines with their newline; only \\n ends a line."""
    parts = data.split(b'\n')
    out = [p + b'\n' for p in parts[:-1]]
    if parts[-1]:
        out.append(parts[-1])
    return out


def write(path, data):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    if path.endswith('.gz'):
        buf = io.BytesIO()
        with gzip.GzipFile(filename='', mode='wb', fileobj=buf, mtime=0, compresslevel=9) as z:
            z.write(data)
        data = buf.getvalue()
    with open(path, 'wb') as f:
        f.write(data)


REQID = re.compile(rb'req-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|tx[0-9a-f]{21}-[0-9a-f]{10}')
TRUTH = ('case', 'method', 'url', 'status', 'req_id', 'user_id', 'project_id', 'folder')


def copy(source, target, listing):
    ids = set()
    with open(listing, encoding='utf-8') as f:
        for entry in f:
            entry = entry.split('#')[0].split()
            if not entry:
                continue
            lines = lines_of(os.path.join(source, entry[0]))
            if entry[1:]:
                picked = []
                for r in entry[1:]:
                    first, _, last = r.partition('-')
                    picked += lines[int(first) - 1:int(last)]
                lines = picked
            out = b''.join(mask(line) for line in lines)
            if len(out) != sum(map(len, lines)):
                sys.exit('mask.py: the length of %s changed' % entry[0])
            ids.update(i.decode() for i in REQID.findall(out))
            write(os.path.join(target, entry[0]), out)
    rows = []
    with open(os.path.join(source, 'requests.ndjson'), 'rb') as f:
        for line in f:
            row = json.loads(mask(line))
            if row['req_id'] in ids:
                rows.append(json.dumps({k: row.get(k) for k in TRUTH}, ensure_ascii=False, separators=(',', ':')))
    write(os.path.join(target, 'requests.ndjson'), ('\n'.join(rows) + '\n').encode())


def leaks(root):
    found = 0
    for d, _, names in sorted(os.walk(root)):
        for n in sorted(names):
            for i, line in enumerate(lines_of(os.path.join(d, n)), 1):
                if mask(line) != line:
                    found += 1
                    print('%s:%d' % (os.path.relpath(os.path.join(d, n), root), i))
    return found


def main(a):
    if len(a) == 3:
        copy(*a)
    elif len(a) == 2 and a[0] == '--leaks':
        sys.exit(1 if leaks(a[1]) else 0)
    elif not a:
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(mask(line))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(sys.argv[1:])
