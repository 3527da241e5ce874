package sseotel

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// JobCounts are the numbers of objects by outcome. It converts from Counts of
// package blob/jobs.
type JobCounts struct {
	Done, Current, Unmatched, Skipped, Deleted int64
	Bytes                                      int64 // written to the store
}

// Job reports one run of a job; see [Telemetry.StartJob]. It is safe for concurrent
// use.
type Job struct {
	t    *Telemetry
	name string
	stop func()

	mu     sync.Mutex
	counts JobCounts
	failed int64
	moved  time.Time // when the job last finished an object
	ended  bool
}

// StartJob reports a job while it runs. name, such as "rewrap photos", becomes an
// attribute.
//
//	job := tel.StartJob("rewrap photos")
//	_, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{Job: jobs.Job{
//		Progress: func(r *jobs.Report) { job.Progress(sseotel.JobCounts(r.Counts), r.Failed) },
//	}})
//	job.End(err)
func (t *Telemetry) StartJob(name string) *Job {
	j := &Job{t: t, name: name, moved: time.Now()}
	own := jobKey.String(name)
	outcome := func(name string) metric.MeasurementOption { return attributes(own, outcomeKey.String(name)) }
	all := attributes(own)
	j.stop = t.observe(func(o metric.Observer) {
		j.mu.Lock()
		defer j.mu.Unlock()
		i := &t.instruments
		for name, n := range map[string]int64{
			"done": j.counts.Done, "current": j.counts.Current, "unmatched": j.counts.Unmatched,
			"skipped": j.counts.Skipped, "deleted": j.counts.Deleted, failed: j.failed,
		} {
			o.ObserveInt64(i.jobObjects, n, outcome(name))
		}
		o.ObserveInt64(i.jobBytes, j.counts.Bytes, all)
		o.ObserveInt64(i.jobActive, 1, all)
		o.ObserveFloat64(i.jobAge, max(0, time.Since(j.moved)).Seconds(), all)
	})
	return j
}

// Progress reports how far the job is. failed counts the objects that the job left undone.
func (j *Job) Progress(counts JobCounts, failed int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts, j.failed, j.moved = counts, failed, time.Now()
}

// End reports that the job returned err. Later calls do nothing.
func (j *Job) End(err error) {
	j.mu.Lock()
	ended := j.ended
	j.ended = true
	j.mu.Unlock()
	if ended {
		return
	}
	j.stop()
	outcome, _ := classify(err)
	if outcome == refused {
		outcome = failed // objects are undone, for whatever reason
	}
	j.t.runs.Add(context.Background(), 1, attributes(jobKey.String(j.name), outcomeKey.String(outcome)))
}
