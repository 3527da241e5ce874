package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/program"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) { program.Main(m, main) }

// TestProgram runs the program, which checks what it shows.
func TestProgram(t *testing.T) {
	temp := t.TempDir()
	text := program.Output(t, temp)
	for _, line := range []string{
		`(?m)^customers/7/passport.jpg  10 bytes, SSE-C`,
		`(?m)^holiday.jpg                7 bytes, SSE-S3 `,
		`(?m)^team/roadmap.jpg          12 bytes, SSE-KMS `,
		`without the customer's key: .*SSE-C`,
		`shared link: 200, "a beach"\nforged link: 403\n`,
		`retire: refused, photos/holiday.jpg needs the version\n`,
		`rewrap: 1 done .* 2 unmatched, 0 deleted meanwhile, 0 failed\n`,
		`retire: the old version is destroyed\n`,
		`all photos open, and so does the link\n\z`,
	} {
		require.Regexp(t, line, text)
	}
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "nothing is left behind")
}
