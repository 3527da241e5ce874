package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// connection stands in for a connection of pgx. It tells what is done with it.
type connection struct {
	tell     func(what string)
	refuses  error    // of statements
	payloads []string // of notifications, before the connection breaks
}

type notification struct{ payload string }

var errBroken = errors.New("connection reset by peer")

func (c *connection) Exec(_ context.Context, statement string, _ ...any) (affected int, err error) {
	c.tell(statement)
	return 0, c.refuses
}

func (c *connection) WaitForNotification(context.Context) (*notification, error) {
	if len(c.payloads) == 0 {
		return nil, errBroken
	}
	n := &notification{c.payloads[0]}
	c.payloads = c.payloads[1:]
	return n, nil
}

func (c *connection) Close(ctx context.Context) error {
	c.tell(fmt.Sprint("close, cancelled: ", ctx.Err() != nil))
	return nil
}

func payload(n *notification) string { return n.payload }

func TestListen(t *testing.T) {
	refused := errors.New("permission denied")
	for name, test := range map[string]struct {
		connectErr error
		conn       connection
		err        error
		says       []string
	}{
		"no connection": {connectErr: refused, err: refused},
		"refused":       {conn: connection{refuses: refused}, err: refused, says: []string{"LISTEN channel", "close, cancelled: false"}},
		"broken": {conn: connection{payloads: []string{"ring", "keys"}}, err: errBroken,
			says: []string{"LISTEN channel", `heard ""`, `heard "ring"`, `heard "keys"`, "close, cancelled: false"}},
	} {
		t.Run(name, func(t *testing.T) {
			var says []string
			ctx, cancel := context.WithCancel(t.Context())
			listen := sqlstore.Listen(func(context.Context) (*connection, error) {
				test.conn.tell = func(what string) {
					says = append(says, what)
					cancel() // a connection is closed properly all the same
				}
				return &test.conn, test.connectErr
			}, payload)
			err := listen(ctx, "channel", func(document string) { says = append(says, fmt.Sprintf("heard %q", document)) })
			cancel()
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.says, says)
		})
	}
}

// connect stands in for pgx.Connect, and notification for pgconn.Notification.
func ExampleListen() {
	connect := func(context.Context) (*connection, error) {
		return &connection{tell: func(string) {}, payloads: []string{"blobs/ring"}}, nil
	}
	listen := sqlstore.Listen(connect, func(n *notification) string { return n.payload })

	// A store calls it, with Options.Listen.
	err := listen(context.Background(), sqlstore.Channel, func(document string) { fmt.Printf("heard %q\n", document) })
	fmt.Println(err)
	// Output:
	// heard ""
	// heard "blobs/ring"
	// connection reset by peer
}
