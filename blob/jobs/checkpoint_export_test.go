package jobs

import "time"

// SaveEvery sets how often a job saves its checkpoint.
func (j *Job) SaveEvery(d time.Duration) { j.saveEvery = d }
