package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/signedurl"
)

// chromium starts a browser with a profile of its own.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path := program(t, "chromium", "chromium")
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.WSURLReadTimeout(patience),
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(browser) // waits for the browser to end, so that its profile can be removed
		cancel()
	})
	require.NoError(t, chromedp.Do(browser, chromedp.Navigate("about:blank")))
	ctx, cancel = context.WithTimeout(browser, patience)
	t.Cleanup(cancel)
	return ctx
}

// await waits for an expression of the page to be true. It asks from outside, since
// a sandboxed page runs no timers.
func await(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	var last any
	for {
		done, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if done && err == nil {
			return
		}
		last = err
		select {
		case <-ctx.Done():
			t.Fatalf("wait for the page: %s (%v)", expression, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func navigate(t *testing.T, ctx context.Context, link string) {
	t.Helper()
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(link)))
}

func evaluate[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(t, err, expression)
	return value
}

// recordVideo is a script that records half a second of a canvas, and uploads it to
// the URL in location.hash. It leaves the status, or what went wrong, in the title.
const recordVideo = `<canvas width=64 height=48></canvas><script>
(async () => {
	const canvas = document.querySelector('canvas'), pen = canvas.getContext('2d');
	const timer = setInterval(() => { pen.fillStyle = 'hsl(' + Date.now() % 360 + ' 100% 50%)'; pen.fillRect(0, 0, 64, 48); }, 20);
	const recorder = new MediaRecorder(canvas.captureStream(25), {mimeType: 'video/webm'}), parts = [];
	recorder.ondataavailable = e => parts.push(e.data);
	const stopped = new Promise(done => recorder.onstop = done);
	recorder.start(); setTimeout(() => recorder.stop(), 500); await stopped; clearInterval(timer);
	const response = await fetch(decodeURIComponent(location.hash.slice(1)), {
		method: 'PUT', body: new Blob(parts), headers: {'Content-Type': 'video/webm', 'If-None-Match': '*'},
	});
	document.title = response.status + ' ' + (response.headers.get('X-Blobseal-Error-Code') || 'ok');
})().catch(e => document.title = e);
</script>`

// TestChromiumUploadsAndPlays: a page of an allowed origin uploads a video, which
// then plays when its URL is opened by itself.
func TestChromiumUploadsAndPlays(t *testing.T) {
	ctx := chromium(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(recordVideo))
	}))
	t.Cleanup(page.Close)
	b := newBed(t, "", &signedurl.HandlerOptions{Origins: []string{page.URL}}, nil)
	put := permit("PUT", "films/a film.webm")
	put.ContentType = "video/webm"

	upload := func() string {
		navigate(t, ctx, "about:blank")
		navigate(t, ctx, page.URL+"/#"+url.QueryEscape(b.sign(t, put)))
		await(t, ctx, "document.title != ''")
		return evaluate[string](t, ctx, "document.title")
	}
	require.Equal(t, "200 ok", upload())
	require.Equal(t, "412 PreconditionFailed", upload(), "scripts can read the code of an error")

	navigate(t, ctx, b.sign(t, permit("GET", "films/a film.webm")))
	await(t, ctx, "document.querySelector('video').readyState == 4 && document.querySelector('video').videoWidth == 64")
	evaluate[bool](t, ctx, "document.querySelector('video').play(), true") // a sandbox starts nothing by itself
	await(t, ctx, "document.querySelector('video').currentTime > 0")
}

// TestChromiumShowsSVG: an SVG that is opened by itself has its style, and runs no
// script; neither does a page.
func TestChromiumShowsSVG(t *testing.T) {
	ctx := chromium(t)
	b := newBed(t, "", nil, nil)
	b.write(t, "a.svg", "image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">
<style>rect { fill: rgb(1, 2, 3) }</style><rect width="9" height="9" onload="this.id = 'ran'"/><script>document.documentElement.id = 'ran'</script></svg>`))
	b.write(t, "a.html", "text/html", []byte(`<title>t</title><p style="color: rgb(1, 2, 3)">text</p><script>document.title = 'ran'</script><img src=x onerror="document.title = 'ran'">`))
	navigate(t, ctx, b.sign(t, permit("GET", "a.svg")))
	require.Equal(t, "rgb(1, 2, 3)", evaluate[string](t, ctx, "getComputedStyle(document.querySelector('rect')).fill"))
	require.Zero(t, evaluate[int](t, ctx, "document.querySelectorAll('#ran').length"))
	navigate(t, ctx, b.sign(t, permit("GET", "a.html")))
	require.Equal(t, "rgb(1, 2, 3)", evaluate[string](t, ctx, "getComputedStyle(document.querySelector('p')).color"))
	require.Equal(t, "t", evaluate[string](t, ctx, "document.title"))
}

// TestChromiumSavesUnderTheName: a download has the name of the object, or the one
// that the URL binds.
func TestChromiumSavesUnderTheName(t *testing.T) {
	ctx := chromium(t)
	b := newBed(t, "", nil, nil)
	b.write(t, "2026/my report.bin", "application/octet-stream", []byte("content"))
	attachment := permit("GET", "2026/my report.bin")
	attachment.ResponseContentDisposition = `attachment; filename="other.bin"`
	names := make(chan string, 2)
	require.NoError(t, chromedp.ListenBrowser(ctx, func(event any) {
		if begin, ok := event.(*browser.EventDownloadWillBegin); ok {
			names <- begin.SuggestedFilename
		}
	}))
	events := true
	_, err := chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllowAndName, DownloadPath: t.TempDir(), EventsEnabled: &events,
	})
	require.NoError(t, err)
	for link, want := range map[string]string{
		b.sign(t, permit("GET", "2026/my report.bin")): "my report.bin",
		b.sign(t, attachment):                          "other.bin",
	} {
		_ = chromedp.Do(ctx, chromedp.Navigate(link)) // fails, since the page does not change
		select {
		case got := <-names:
			require.Equal(t, want, got)
		case <-ctx.Done():
			t.Fatal("wait for the download to begin")
		}
	}
}
