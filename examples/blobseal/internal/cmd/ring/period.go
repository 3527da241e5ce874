package ring

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// period is an age at which a ring rotates, as a text such as 30d or 36h.
type period time.Duration

const (
	leastPeriod = time.Minute
	mostPeriod  = 3650 * 24 * time.Hour
)

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *period) UnmarshalText(text []byte) error {
	d, err := model.ParseDuration(string(text))
	if age := time.Duration(d); err != nil || age < leastPeriod || age > mostPeriod || age%time.Second != 0 {
		return fmt.Errorf("%q: want 1m to 3650d, such as 30d", text)
	}
	*p = period(d)
	return nil
}

type setPeriodCmd struct {
	keys.RingFlags
	Period period `arg:"" help:"Age at which the newest version is replaced, such as 30d."`
}

func (cmd setPeriodCmd) Run(ctx context.Context, c *console.Console) error {
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	if err := ring.SetPeriod(ctx, time.Duration(cmd.Period)); err != nil {
		return cmd.About(err)
	}
	return c.ReportChange(change{Ring: cmd.Ring, Done: "period set"}, "%s: a new version every %s\n", message.Printable(cmd.Ring), Days(ring.Period()))
}
