package web

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/signedurl"
)

// awkwardKeys are keys whose URLs clients spell in different ways.
var awkwardKeys = []string{
	"2026/cat.jpg", "a/:@,;'()*?!$&=#[]", "sp ace/100% + more.pdf", "ünï/cödé 猫.txt", "~-_./x", "a|b^c`d{e}\"<f>",
}

func permit(method, key string) signedurl.Permit { return signedurl.Permit{Method: method, Key: key} }

// links returns signed URLs for GETs, and for PUTs with a bound content type that
// has characters which clients escape.
func links(t *testing.T, b *bed) (gets, puts []string) {
	for _, key := range awkwardKeys {
		b.write(t, key, "text/plain", []byte("content of "+key))
		gets = append(gets, b.sign(t, permit("GET", key)))
		put := permit("PUT", key+"-new")
		put.ContentType = "image/svg+xml"
		puts = append(puts, b.sign(t, put))
	}
	return gets, puts
}

// checkPuts checks that all PUTs have arrived.
func checkPuts(t *testing.T, b *bed) {
	for _, key := range awkwardKeys {
		got, err := b.ReadAll(t.Context(), key+"-new")
		require.NoError(t, err)
		require.Equal(t, "<svg/>", string(got))
	}
}

func TestCurl(t *testing.T) {
	curl := program(t, "curl", "curl")
	b := newBed(t, "", nil, nil)
	gets, puts := links(t, b)
	for i, link := range gets {
		require.Equal(t, "content of "+awkwardKeys[i], run(t, "", curl, "-gfsS", link))
		require.Equal(t, "content", run(t, "", curl, "-gfsS", "-r", "0-6", link))
	}
	for _, link := range puts {
		run(t, "<svg/>", curl, "-gfsS", "-X", "PUT", "--data-binary", "@-", "-H", "Content-Type: image/svg+xml", link)
	}
	checkPuts(t, b)

	dir := t.TempDir()
	run(t, "", curl, "-fsS", "--output-dir", dir, "-O", gets[0])
	require.FileExists(t, filepath.Join(dir, "cat.jpg"), "saved under the object's name")
}

func TestWget(t *testing.T) {
	wget := program(t, "wget", "wget")
	b := newBed(t, "", nil, nil)
	gets, _ := links(t, b)
	for i, link := range gets {
		require.Equal(t, "content of "+awkwardKeys[i], run(t, "", wget, "-qO-", link))
	}
}

// TestNode: fetch, with URLs that URL and URLSearchParams have spelled.
func TestNode(t *testing.T) { testNode(t, "") }

// TestAxios: the same with axios, whose params have an encoding of their own.
func TestAxios(t *testing.T) {
	dir := os.Getenv("BLOBSEAL_AXIOS")
	if dir == "" {
		t.Skip("axios is missing (install it with: npm install axios, and set BLOBSEAL_AXIOS to the absolute path of node_modules/axios)")
	}
	testNode(t, dir)
}

func testNode(t *testing.T, axios string) {
	node := program(t, "node", "nodejs")
	const script = `
const {gets, puts, contents, axios} = JSON.parse(require('fs').readFileSync(0));
const edits = {
  asIs: link => link,
  url: link => new URL(link).href,
  searchParams: link => { const u = new URL(link); u.searchParams.set('method', u.searchParams.get('method')); return u.href; },
  sorted: link => { const u = new URL(link); u.searchParams.sort(); return u.toString(); },
  rebuilt: link => { const u = new URL(link); return u.origin + u.pathname + '?' + new URLSearchParams([...u.searchParams].reverse()); },
  decoded: link => { const u = new URL(link); return u.origin + u.pathname + '?' + [...u.searchParams].map(([k, v]) => k + '=' + encodeURIComponent(v)).join('&'); },
};
const clients = {
  fetch: async (method, link, body) => { const r = await fetch(link, {method, body, headers: body && {'Content-Type': 'image/svg+xml'}}); return [r.status, await r.text()]; },
};
if (axios) {
  const lib = require(axios);
  const send = async config => { const r = await lib({...config, transformResponse: x => x, validateStatus: () => true}); return [r.status, r.data]; };
  const headers = body => body ? {'Content-Type': 'image/svg+xml'} : {};
  clients.axios = (method, url, data) => send({method, url, data, headers: headers(data)});
  clients.axiosParams = (method, link, data) => {
    const u = new URL(link);
    return send({method, url: u.origin + u.pathname, params: Object.fromEntries(u.searchParams), data, headers: headers(data)});
  };
}
(async () => {
  const failures = [];
  for (const [client, send] of Object.entries(clients)) for (const [edit, spell] of Object.entries(edits)) {
    for (const i in gets) {
      const [status, text] = await send('GET', spell(gets[i]));
      if (status != 200 || text != contents[i]) failures.push([client, edit, 'GET', status, spell(gets[i])]);
    }
    for (const link of puts) {
      const [status] = await send('PUT', spell(link), '<svg/>');
      if (status != 200) failures.push([client, edit, 'PUT', status, spell(link)]);
    }
  }
  console.log(JSON.stringify({clients: Object.keys(clients), failures}));
})();`
	b := newBed(t, "", nil, nil)
	gets, puts := links(t, b)
	stdin, err := json.Marshal(map[string]any{"gets": gets, "puts": puts, "contents": contents(), "axios": axios})
	require.NoError(t, err)
	var out struct{ Clients, Failures []any }
	require.NoError(t, json.Unmarshal([]byte(run(t, string(stdin), node, "-e", script)), &out))
	require.Empty(t, out.Failures)
	t.Logf("clients: %v", out.Clients)
	checkPuts(t, b)
}

func contents() (all []string) {
	for _, key := range awkwardKeys {
		all = append(all, "content of "+key)
	}
	return all
}

// TestPython: urllib, with URLs as they are and encoded again, also as yarl does,
// the URL type of aiohttp, which leaves unescaped what RFC 3986 allows in a query.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing (install it with: apt-get install python3)")
	}
	const script = `
import json, sys, urllib.error, urllib.request
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlencode, urlsplit, urlunsplit
given = json.load(sys.stdin)
def again(encode):
    def spell(link):
        u = urlsplit(link)
        return urlunsplit(u._replace(query=encode(parse_qsl(u.query, keep_blank_values=True))))
    return spell
yarl = lambda s: quote(s, safe="?/:@-._~!$'()*,;").replace('%20', '+')
spellings = {
    'as is': lambda link: link,
    'urlencode': again(urlencode),
    'quote': again(lambda q: urlencode(q, quote_via=quote)),
    'like yarl': again(lambda q: '&'.join(k + '=' + yarl(v) for k, v in q)),
}
failures = []
def send(method, link, data=None):
    headers = {'Content-Type': 'image/svg+xml'} if data else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(link, data, headers, method=method)) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, ''
for name, spell in spellings.items():
    for link, content in zip(given['gets'], given['contents']):
        status, text = send('GET', spell(link))
        if status != 200 or text != content: failures.append([name, 'GET', status, spell(link)])
    for link in given['puts']:
        status, _ = send('PUT', spell(link), b'<svg/>')
        if status != 200: failures.append([name, 'PUT', status, spell(link)])
print(json.dumps(failures))`
	b := newBed(t, "", nil, nil)
	gets, puts := links(t, b)
	stdin, err := json.Marshal(map[string]any{"gets": gets, "puts": puts, "contents": contents()})
	require.NoError(t, err)
	require.Equal(t, "[]", strings.TrimSpace(run(t, string(stdin), python, "-c", script)))
	checkPuts(t, b)
}
