package localkms_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// Brackets in text and in comments are not nested ones.
func TestBracketsInPolicies(t *testing.T) {
	s := open(t, nil, nil)
	many := strings.Repeat("([{", 100)
	for _, text := range []string{
		"// " + many + "\n" + permitAll,
		"//" + many + "\"" + many + "\n" + permitAll,
		permitAll + `forbid (principal, action, resource) when { principal.id == "` + many + `" };`,
		permitAll + `forbid (principal, action, resource) when { principal.id == "\"` + many + `" };`,
		permitAll + `forbid (principal, action, resource) when { principal.id == "//` + `" && principal.id == "` + many + `" };`,
		permitAll + `forbid (principal, action, resource) when { principal.id == "\\" };` + "// " + many,
		permitAll + "forbid (principal, action, resource) when { " + strings.Repeat("(", 60) + "false" + strings.Repeat(")", 60) + " };",
		strings.Repeat(permitAll+"\n", 100),
	} {
		require.NoError(t, s.PutKeyPolicy(t.Context(), s.key(), text, nil), "%.80s", text)
	}
	isKind(t, kms.ErrInvalid, s.PutKeyPolicy(t.Context(), s.key(),
		`permit (principal, action, resource) when { "//" == "`+`" || `+strings.Repeat("(", 100)+"true"+strings.Repeat(")", 100)+" };", nil))
}

// largePolicies are texts of the greatest size that nest or repeat one thing, and a name
// for conditions to match.
func largePolicies() (texts []string, name string) {
	wrap := func(condition string) string {
		return permitAll + "permit (principal, action, resource) when { " + condition + " };"
	}
	repeat := func(part string) string {
		return strings.Repeat(part, (localkms.MaxPolicy-200)/len(part))
	}
	return []string{
		wrap(repeat("!") + "true"), wrap(repeat("-") + "1 == 1"), wrap(repeat("true && ") + "true"), wrap(repeat("true || ") + "true"),
		wrap(repeat("1 + ") + "1 == 1"), wrap(repeat("1 * ") + "1 == 1"), wrap("context" + repeat(".a") + " == 1"),
		wrap(strings.Repeat("if true then ", 1000) + "true" + strings.Repeat(" else true", 1000)),
		wrap("principal.id like \"" + repeat("*a") + "\""), wrap("[" + repeat("1,") + "1].contains(1)"),
		repeat(permitAll), permitAll + repeat("@"), permitAll + repeat("permit"),
	}, repeat("a")
}

// TestLargePoliciesComeToAnEnd: no recursion exhausts the stack, and no work grows
// exponentially, which would take years. BenchmarkLargePolicies measures the time.
func TestLargePoliciesComeToAnEnd(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	texts, name := largePolicies()
	for _, text := range texts {
		done := make(chan error, 1)
		go func() {
			var err error
			if s.PutKeyPolicy(t.Context(), id, text, nil) == nil {
				err = s.Authorize(as(t, name), kms.OpDecrypt, id, nil)
			}
			done <- err
		}()
		select {
		case err := <-done:
			require.NoError(t, err, "%.100s", text)
		case <-time.After(2 * time.Minute):
			t.Fatalf("wait for a policy to be parsed and evaluated, which takes a fraction of a second: %.100s", text)
		}
	}
}

func BenchmarkLargePolicies(b *testing.B) {
	s := open(b, nil, nil)
	id := s.key()
	texts, name := largePolicies()
	for i, text := range texts {
		b.Run(strconv.Itoa(i), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if s.PutKeyPolicy(b.Context(), id, text, nil) == nil {
					require.NoError(b, s.Authorize(as(b, name), kms.OpDecrypt, id, nil))
				}
			}
		})
	}
}
