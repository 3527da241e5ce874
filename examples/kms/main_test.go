package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/program"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) { program.Main(m, main) }

// TestProgram runs the program, which checks what it shows.
func TestProgram(t *testing.T) {
	text := program.Output(t, t.TempDir())
	for _, line := range []string{
		`writer reads:  .*access denied: "role/writer" may not Decrypt with arn:`,
		`reader reads:  "the figures of march"`,
		`reader writes: .*access denied: "role/reader" may not GenerateDataKey with arn:`,
		`disabled:      .*key is disabled: arn:`,
		`\nLINE  TIME +PRINCIPAL +OPERATION +RESOURCE +OUTCOME\n`,
		`\n6 .* role/writer +Decrypt +documents/march +failure: Denied\n`,
		`\n11 .* role/reader +Decrypt +documents/march +failure: Disabled\n`,
		`verified: 13 records`,
		`edited copy: found: line 8 is edited: the line does not match its hash`,
	} {
		require.Regexp(t, line, text)
	}
}
