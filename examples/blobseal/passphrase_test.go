//go:build linux

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/internal/testbed/await"
)

// TestPassphrasePrompt types passphrases on a terminal, which must not show them.
func TestPassphrasePrompt(t *testing.T) {
	workspace(t)
	const good = "correct horse battery staple zebra"
	create := args("ring", "create", "--passphrase-prompt", "--ring")
	for name, test := range map[string]struct {
		args  []string
		typed []string // an answer to each question
		code  int
		says  string
	}{
		"new":     {args(create, "new.ring"), []string{good, good}, 0, ""},
		"weak":    {args(create, "weak.ring"), []string{"passwordpassword"}, 3, "the passphrase is easy to guess"},
		"short":   {args(create, "weak.ring"), []string{"x7$Kp_2q"}, 3, "the passphrase is easy to guess"},
		"differ":  {args(create, "weak.ring"), []string{good, good + "s"}, 3, "the passphrases differ"},
		"empty":   {args(create, "weak.ring"), []string{""}, 1, "the passphrase is empty"},
		"service": {args("kms", "init", "--kms", "new.kms", "--passphrase-prompt"), []string{good, good}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := typePassphrases(t, test.args, test.typed, test.says)
			require.Equal(t, test.code, code, text)
			require.NotContains(t, text, "correct")
		})
	}
	require.NotContains(t, files(t), "weak.ring")
	code, text := typePassphrases(t, args("ring", "list", "--ring", "new.ring", "--passphrase-prompt"), []string{good}, "")
	require.Zero(t, code, text)
	code, text = typePassphrases(t, args("ring", "list", "--ring", "new.ring", "--passphrase-prompt"), []string{"wrong"}, "wrong root")
	require.NotZero(t, code, text)
	blobseal("ring", "list", "--ring", "new.ring", "--passphrase-prompt").fails(t, 2, "standard input is no terminal")
}

func TestPassphrasePromptInterrupted(t *testing.T) {
	workspace(t)
	tty, screen := terminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- runOn(ctx, console.New(tty, new(bytes.Buffer), tty), args("ring", "list", "--ring", "my.ring", "--passphrase-prompt"))
	}()
	show(t, screen, "Passphrase: ")
	interrupt()
	require.NotZero(t, await.Value(t, code, "the command to end"))
	show(t, screen, "blobseal: interrupted")
}

// typePassphrases runs a command on a terminal, answers its questions, and returns its
// exit code and what the terminal showed, up to says.
func typePassphrases(t *testing.T, args, typed []string, says string) (int, string) {
	tty, screen := terminal(t)
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- runOn(t.Context(), console.New(tty, &out, tty), args) }()
	var shown strings.Builder
	for i, text := range typed {
		shown.WriteString(show(t, screen, []string{"assphrase: ", "The same again: "}[i]))
		require.Eventually(t, func() bool {
			mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			return err == nil && mode.Lflag&unix.ECHO == 0
		}, time.Minute, time.Millisecond, "the terminal to hide what is typed")
		_, err := screen.WriteString(text + "\n")
		require.NoError(t, err)
	}
	got := await.Value(t, code, "the command to end")
	if says != "" {
		shown.WriteString(show(t, screen, says))
	}
	return got, shown.String()
}
