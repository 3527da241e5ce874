// Package console is what a command talks to: streams, a terminal, progress bars.
package console

import (
	"io"
	"os"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/alecthomas/kong"
	"golang.org/x/term"
	"google.golang.org/api/option"
)

// Console is what a command talks to.
type Console struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	Parser     *kong.Kong // of command lines; nil for one of its own
	IsTerminal func(stream any) bool
	Patience   time.Duration // before a progress bar shows
	AuditWait  time.Duration // for an audit trail that another process writes
	RootWait   time.Duration // for the key service of a root

	// How the clients of vendors' key services are made.
	Google          []option.ClientOption
	Azure           *azkeys.ClientOptions
	AzureCredential func() (azcore.TokenCredential, error)

	ends []func() // of what the command has opened
}

func New(stdin io.Reader, stdout, stderr io.Writer) *Console {
	return &Console{
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		IsTerminal: isTerminal, Patience: time.Second, AuditWait: auditWait, RootWait: rootWait,
		AzureCredential: func() (azcore.TokenCredential, error) { return azidentity.NewDefaultAzureCredential(nil) },
	}
}

// AtEnd has a function called when the command is done.
func (c *Console) AtEnd(end func()) { c.ends = append(c.ends, end) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// rootWait is how long a key service may take to answer, with all that its client
// tries again.
const rootWait = 30 * time.Second

// auditWait is how long to wait for other processes that write an audit trail, before
// an operation fails.
const auditWait = 10 * time.Second

// End ends what the command has opened, the last first.
func (c *Console) End() {
	for _, end := range slices.Backward(c.ends) {
		end()
	}
	c.ends = nil
}
