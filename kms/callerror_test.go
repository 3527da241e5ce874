package kms_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// late is a context whose deadline has come, and which has not noticed.
type late struct {
	context.Context
	deadline time.Time
}

func (l late) Deadline() (time.Time, bool) { return l.deadline, true }

func TestCallError(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	sdk := errors.New("the SDK's")
	for name, tc := range map[string]struct {
		ctx       context.Context
		kind, err error
		is, not   []error
	}{
		"kind":                    {t.Context(), kms.ErrDenied, sdk, []error{kms.ErrDenied, sdk}, nil},
		"no kind":                 {t.Context(), nil, sdk, []error{sdk}, []error{kms.ErrUnavailable}},
		"an end of ctx":           {cancelled, kms.ErrDenied, sdk, []error{context.Canceled}, []error{kms.ErrDenied}},
		"that the SDK reports":    {cancelled, nil, context.Canceled, []error{context.Canceled}, []error{kms.ErrUnavailable}},
		"ctx's own comes first":   {late{cancelled, time.Now()}, nil, sdk, []error{context.Canceled}, []error{context.DeadlineExceeded}},
		"a deadline just now":     {late{t.Context(), time.Now()}, kms.ErrUnavailable, sdk, []error{context.DeadlineExceeded}, []error{kms.ErrUnavailable}},
		"a deadline later":        {late{t.Context(), time.Now().Add(time.Hour)}, kms.ErrUnavailable, sdk, []error{kms.ErrUnavailable}, nil},
		"a limit of the SDK":      {t.Context(), nil, context.DeadlineExceeded, []error{kms.ErrUnavailable}, []error{context.DeadlineExceeded}},
		"a limit that has a kind": {t.Context(), kms.ErrDenied, context.Canceled, []error{kms.ErrDenied}, []error{context.Canceled}},
	} {
		t.Run(name, func(t *testing.T) {
			err := kms.CallError(tc.ctx, kms.OpDecrypt, "key", tc.kind, tc.err)
			failed, ok := errors.AsType[*kms.KeyError](err)
			require.True(t, ok)
			require.Equal(t, kms.OpDecrypt, failed.Op)
			require.Equal(t, "key", failed.KeyID)
			for _, is := range tc.is {
				require.ErrorIs(t, err, is)
			}
			for _, not := range tc.not {
				require.NotErrorIs(t, err, not)
			}
			require.Same(t, err, kms.CallError(tc.ctx, kms.OpGenerateDataKey, "other", kms.ErrInvalid, err), "as it is")
		})
	}
	require.NoError(t, kms.CallError(cancelled, kms.OpDecrypt, "key", kms.ErrInvalid, nil))
}

func TestSealDataKey(t *testing.T) {
	key, dataKey := make([]byte, kms.DataKeySize), []byte("0123456789abcdef0123456789abcdef")
	key[0] = 1
	ec := kms.Context{"team": "blue"}
	sealed, err := kms.SealDataKey(key, dataKey, ec)
	require.NoError(t, err)
	require.Len(t, sealed, 104)
	opened, err := kms.OpenDataKey(key, sealed, ec)
	require.NoError(t, err)
	require.Equal(t, dataKey, opened)
	for _, wrong := range []struct {
		key, sealed []byte
		ec          kms.Context
	}{
		{key, sealed, kms.Context{"team": "red"}},
		{dataKey, sealed, ec},
		{key[:31], sealed, ec},
		{key, sealed[:103], ec},
		{key, nil, ec},
	} {
		_, err := kms.OpenDataKey(wrong.key, wrong.sealed, wrong.ec)
		require.ErrorIs(t, err, kms.ErrCiphertext)
	}
	_, err = kms.SealDataKey(key[:31], dataKey, ec)
	require.ErrorIs(t, err, kms.ErrInvalid)
}

func TestCallWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		dropped := make(chan string, 2)
		call := func(took time.Duration) (string, error) {
			return kms.CallWithContext(ctx, func() string {
				time.Sleep(took)
				return "key"
			}, func(result string) { dropped <- result })
		}
		result, err := call(time.Millisecond)
		require.NoError(t, err)
		require.Equal(t, "key", result)
		require.Empty(t, dropped)

		result, err = call(time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Empty(t, result)
		require.Empty(t, dropped, "the call goes on")
		time.Sleep(time.Hour)
		require.Equal(t, "key", <-dropped)
	})
}

func TestCheckDataKey(t *testing.T) {
	for _, size := range []int{0, kms.DataKeySize - 1, kms.DataKeySize, kms.DataKeySize + 1} {
		plaintext := bytes.Repeat([]byte{1}, size)
		checked, err := kms.CheckDataKey(plaintext)
		if size == kms.DataKeySize {
			require.NoError(t, err)
			require.Equal(t, plaintext, checked)
			continue
		}
		require.ErrorIs(t, err, kms.ErrCiphertext)
		require.Nil(t, checked)
		require.Equal(t, make([]byte, size), plaintext, "cleared")
	}
}
