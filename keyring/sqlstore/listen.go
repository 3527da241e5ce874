package sqlstore

import "context"

// Conn is a connection to PostgreSQL that can wait for notifications. *pgx.Conn is one. R is
// the type of the driver's results, and N of its notifications.
type Conn[R, N any] interface {
	Exec(ctx context.Context, statement string, args ...any) (R, error)
	WaitForNotification(ctx context.Context) (N, error)
	Close(ctx context.Context) error
}

// Listen returns a function for [Options].Listen. connect opens a connection to the server
// itself, and payload returns the payload of a notification. With pgx:
//
//	sqlstore.Listen(
//		func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
//		func(n *pgconn.Notification) string { return n.Payload },
//	)
func Listen[C Conn[R, N], R, N any](connect func(context.Context) (C, error), payload func(N) string) func(ctx context.Context, channel string, heard func(document string)) error {
	return func(ctx context.Context, channel string, heard func(document string)) error {
		conn, err := connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
		heard("")
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			heard(payload(n))
		}
	}
}
