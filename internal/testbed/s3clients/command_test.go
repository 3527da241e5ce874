package s3clients

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
)

// command is a client that is a command: each task is a run of it.
type command struct {
	program     string
	environment []string
	dir         string
}

// newCommand returns a command in a client's directory, or skips and says what to
// install.
func newCommand(t *testing.T, b *bed, program, install string) *command {
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("no %s here; install it with: %s", program, install)
	}
	return &command{path, b.environment(), b.work}
}

// errorCode matches S3's code in what aws-cli says of an error.
var errorCode = regexp.MustCompile(`An error occurred \((\w+)\)`)

// run runs the command. Its failure is the answer's error.
func (c *command) run(ctx context.Context, args ...string) (out []byte, got answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, await.Longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Dir, cmd.Env = c.dir, c.environment
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err = cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
		got.Error = fmt.Sprintf("%s %q: %v\n%s%s", c.program, args, exit, said.Bytes(), out[:min(len(out), 1000)])
		if code := errorCode.FindSubmatch(said.Bytes()); code != nil {
			got.Code = string(code[1])
		}
	}
	return out, got, err
}

// do runs the command for a task of which only its success counts.
func (c *command) do(ctx context.Context, args ...string) (answer, error) {
	_, got, err := c.run(ctx, args...)
	return got, err
}

// save runs the command and writes the first n bytes of its output to a file. To print
// nothing is an error: rclone takes an object that it may not look at for a directory.
func (c *command) save(ctx context.Context, file string, n int64, args ...string) (answer, error) {
	out, got, err := c.run(ctx, args...)
	if err == nil && got.Error == "" && len(out) == 0 {
		got.Error = fmt.Sprintf("%s %q printed nothing", c.program, args)
	}
	if err != nil || got.Error != "" {
		return got, err
	}
	return got, os.WriteFile(filepath.Join(c.dir, file), out[:min(int64(len(out)), n)], 0o600)
}

// url runs the command and takes the URL that it prints.
func (c *command) url(ctx context.Context, args ...string) (answer, error) {
	out, got, err := c.run(ctx, args...)
	got.URL = strings.TrimSpace(string(out))
	return got, err
}

// moved runs the command and counts the lines that say that an object was moved.
func (c *command) moved(ctx context.Context, say string, args ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, await.Longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Dir, cmd.Env = c.dir, c.environment
	out, err := cmd.CombinedOutput()
	if err != nil {
		return answer{}, fmt.Errorf("%s %q: %w\n%s", c.program, args, err, out)
	}
	return answer{Moved: strings.Count(string(out), say)}, nil
}

// sizes runs the command and takes the sizes of objects from its lines.
func (c *command) sizes(ctx context.Context, parse func(line string) (key string, size int64, err error), args ...string) (answer, error) {
	out, got, err := c.run(ctx, args...)
	got.Sizes = map[string]int64{}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == "None" { // aws-cli, of a page without objects
			continue
		}
		key, size, err := parse(line)
		if err != nil {
			return got, fmt.Errorf("%q: %w", line, err)
		}
		got.Sizes[key] = size
	}
	return got, err
}

// keyFile writes a customer's key to a file and returns its name.
func (c *command) keyFile(m mode) string {
	name := filepath.Join(c.dir, "key-"+string(m.Customer[:8]))
	if err := os.WriteFile(name, m.Customer, 0o600); err != nil {
		panic(err)
	}
	return name
}

// awsCLI is aws-cli, version 1 or 2.
var awsCLI = client{name: "aws-cli", start: startAWS, isCommand: true, cannot: map[string]string{
	"presigned GET, SSE-C": "aws s3 presign signs no headers",
	"presigned PUT, *":     "aws s3 presign signs GET alone",
}}

func startAWS(t *testing.T, b *bed) doer {
	c := newCommand(t, b, "aws", "apt-get install awscli")
	// Without version s3v4, presigned URLs have signatures of version 2, which the engine
	// does not know.
	config := fmt.Sprintf("[default]\ns3 =\n  signature_version = s3v4\n  multipart_threshold = %d\n  multipart_chunksize = %d\n", partSize, partSize)
	require.NoError(t, os.WriteFile(filepath.Join(b.work, "aws.config"), []byte(config), 0o600))
	endpoint := []string{"--endpoint-url", b.url}
	at := func(key string) string { return "s3://" + bucket + "/" + key }
	return func(ctx context.Context, do task) (answer, error) {
		s3 := func(args ...string) (answer, error) {
			return c.do(ctx, slices.Concat(endpoint, []string{"s3"}, args)...)
		}
		switch do.Do {
		case "put":
			return s3(append([]string{"cp", "--quiet", do.File, at(do.Key)}, c.awsWrite(do.Mode)...)...)
		case "get":
			return s3(append([]string{"cp", "--quiet", at(do.Key), do.File}, c.awsCustomer("--sse-c", do.Mode)...)...)
		case "copy":
			return s3(slices.Concat([]string{"cp", "--quiet", at(do.From), at(do.Key)}, c.awsWrite(do.Mode), c.awsCustomer("--sse-c-copy-source", do.FromMode))...)
		case "range":
			args := append(endpoint, "s3api", "get-object", "--bucket", bucket, "--key", do.Key, "--range", fmt.Sprintf("bytes=%d-%d", do.Offset, do.Offset+do.Length-1))
			if do.Mode.Customer != nil {
				args = append(args, "--sse-customer-algorithm", "AES256", "--sse-customer-key", string(do.Mode.Customer))
			}
			return c.do(ctx, append(args, do.File)...)
		case "list":
			return c.sizes(ctx, func(line string) (key string, size int64, err error) {
				_, err = fmt.Sscan(line, &key, &size)
				return key, size, err
			}, append(endpoint, "s3api", "list-objects-v2", "--bucket", bucket, "--prefix", do.Key, "--page-size", "2", "--query", "Contents[].[Key,Size]", "--output", "text")...)
		case "presign-get":
			return c.url(ctx, append(endpoint, "s3", "presign", at(do.Key))...)
		case "sync":
			return c.moved(ctx, "upload: ", append(slices.Concat(endpoint, []string{"s3", "sync", "--no-progress"}, c.awsWrite(do.Mode)), do.File, at(do.Key))...)
		}
		return answer{}, errors.ErrUnsupported
	}
}

func (c *command) awsCustomer(flag string, m mode) []string {
	if m.Customer == nil {
		return nil
	}
	return []string{flag, "AES256", flag + "-key", "fileb://" + c.keyFile(m)}
}

func (c *command) awsWrite(m mode) []string {
	switch m.Name {
	case "SSE-S3":
		return []string{"--sse", "AES256"}
	case "SSE-KMS":
		return []string{"--sse", "aws:kms", "--sse-kms-key-id", m.KeyID}
	}
	return c.awsCustomer("--sse-c", m)
}

// rclone is rclone. It has one mode for all objects of a remote: the flags are those of
// a task's objects.
var rclone = client{name: "rclone", start: startRclone, isCommand: true, cannot: map[string]string{
	"copy, SSE-C to SSE-S3":           rcloneOneKey,
	"copy, SSE-C to SSE-KMS":          rcloneOneKey,
	"copy, SSE-S3 to SSE-C":           rcloneOneKey,
	"copy, SSE-KMS to SSE-C":          rcloneOneKey,
	"copy in parts, SSE-KMS to SSE-C": rcloneOneKey,
	"copy in parts, SSE-C to SSE-S3":  rcloneOneKey,
	"copy onto itself, *":             "rclone copies nothing that is already there",
	"presigned GET, SSE-C":            "rclone link signs no headers",
	"presigned PUT, *":                "rclone link signs GET alone",
}}

const rcloneOneKey = "the server copies with one customer's key for source and copy; between others, rclone gets and puts"

func startRclone(t *testing.T, b *bed) doer {
	c := newCommand(t, b, "rclone", "apt-get install rclone")
	c.environment = slices.DeleteFunc(c.environment, func(setting string) bool {
		return strings.HasPrefix(setting, "AWS_CA_BUNDLE=") // with it, rclone does not start
	})
	for name, value := range map[string]string{
		"CONFIG": "/dev/null", "CA_CERT": b.ca, "CONFIG_GW_TYPE": "s3", "CONFIG_GW_PROVIDER": "Other", "CONFIG_GW_ENDPOINT": b.url,
		"CONFIG_GW_REGION": region, "CONFIG_GW_ACCESS_KEY_ID": b.user, "CONFIG_GW_SECRET_ACCESS_KEY": b.secret,
		"S3_UPLOAD_CUTOFF": "5Mi", "S3_CHUNK_SIZE": "5Mi", "S3_COPY_CUTOFF": "5Mi", "S3_NO_CHECK_BUCKET": "true", "LOW_LEVEL_RETRIES": "1", "RETRIES": "1",
	} {
		c.environment = append(c.environment, "RCLONE_"+name+"="+value)
	}
	at := func(key string) string { return "gw:" + bucket + "/" + key }
	return func(ctx context.Context, do task) (answer, error) {
		flags := rcloneFlags(do.Mode)
		switch do.Do {
		case "put":
			return c.do(ctx, append(flags, "copyto", do.File, at(do.Key))...)
		case "get":
			return c.do(ctx, append(flags, "copyto", at(do.Key), do.File)...)
		case "range":
			return c.save(ctx, do.File, do.Length, append(flags, "cat", "--offset", fmt.Sprint(do.Offset), "--count", fmt.Sprint(do.Length), at(do.Key))...)
		case "copy":
			return c.do(ctx, append(flags, "copyto", at(do.From), at(do.Key))...)
		case "list":
			return c.sizes(ctx, func(line string) (string, int64, error) {
				size, key, _ := strings.Cut(strings.TrimSpace(line), ";")
				var n int64
				_, err := fmt.Sscan(size, &n)
				return key, n, err
			}, "lsf", "-R", "--files-only", "--format", "sp", "--include", "/"+do.Key+"*/**", at(""))
		case "presign-get":
			return c.url(ctx, append(flags, "link", "--expire", "1h", at(do.Key))...)
		case "sync":
			return c.moved(ctx, ": Copied (", append(flags, "sync", "-v", do.File, at(do.Key))...)
		}
		return answer{}, errors.ErrUnsupported
	}
}

func rcloneFlags(m mode) []string {
	switch m.Name {
	case "SSE-S3":
		return []string{"--s3-server-side-encryption", "AES256"}
	case "SSE-KMS":
		return []string{"--s3-server-side-encryption", "aws:kms", "--s3-sse-kms-key-id", m.KeyID}
	}
	if m.Customer == nil {
		return nil
	}
	return []string{"--s3-sse-customer-algorithm", "AES256", "--s3-sse-customer-key", string(m.Customer)}
}

// s3cmd is s3cmd.
var s3cmd = client{name: "s3cmd", start: startS3cmd, isCommand: true, cannot: map[string]string{
	"*SSE-C*":            "s3cmd has no SSE-C",
	"refusal, wrong key": "s3cmd has no SSE-C",
	"presigned *":        "s3cmd signs URLs by version 2, which the engine does not know",
}}

func startS3cmd(t *testing.T, b *bed) doer {
	c := newCommand(t, b, "s3cmd", "apt-get install s3cmd")
	host := strings.TrimPrefix(b.url, "https://")
	config := fmt.Sprintf("[default]\naccess_key = %s\nsecret_key = %s\nbucket_location = %s\nhost_base = %s\nhost_bucket = %s\nca_certs_file = %s\n"+
		"multipart_chunk_size_mb = 5\nmultipart_copy_chunk_size_mb = 5\nmax_retries = 1\n", b.user, b.secret, region, host, host, b.ca)
	require.NoError(t, os.WriteFile(filepath.Join(b.work, "s3cfg"), []byte(config), 0o600))
	at := func(key string) string { return "s3://" + bucket + "/" + key }
	return func(ctx context.Context, do task) (answer, error) {
		s3 := func(args ...string) (answer, error) {
			return c.do(ctx, append([]string{"--config=s3cfg", "--quiet"}, args...)...)
		}
		var write []string
		switch do.Mode.Name {
		case "SSE-S3":
			write = []string{"--server-side-encryption"}
		case "SSE-KMS":
			write = []string{"--server-side-encryption", "--server-side-encryption-kms-id=" + do.Mode.KeyID}
		}
		switch do.Do {
		case "put":
			return s3(append(write, "put", do.File, at(do.Key))...)
		case "get":
			return s3("get", "--force", at(do.Key), do.File)
		case "range":
			return c.s3cmdRange(do, func(file string) (answer, error) { return s3("get", "--continue", at(do.Key), file) })
		case "copy":
			return s3(append(write, "cp", at(do.From), at(do.Key))...)
		case "list":
			return c.sizes(ctx, func(line string) (key string, size int64, err error) {
				var day, hour string
				_, err = fmt.Sscan(line, &day, &hour, &size, &key)
				return strings.TrimPrefix(key, at("")), size, err
			}, "--config=s3cfg", "ls", "--recursive", at(do.Key))
		case "sync":
			return c.moved(ctx, "upload: ", append(append([]string{"--config=s3cfg", "--no-progress"}, write...), "sync", do.File+"/", at(do.Key)+"/")...)
		}
		return answer{}, errors.ErrUnsupported
	}
}

// s3cmdRange continues a file, which is how s3cmd gets a range.
func (c *command) s3cmdRange(do task, get func(file string) (answer, error)) (answer, error) {
	content, err := os.ReadFile(filepath.Join(c.dir, "big"))
	if err != nil {
		return answer{}, err
	}
	part := filepath.Join(c.dir, "part")
	if err := os.WriteFile(part, content[:do.Offset], 0o600); err != nil {
		return answer{}, err
	}
	got, err := get(part)
	if err != nil || got.Error != "" {
		return got, err
	}
	if content, err = os.ReadFile(part); err != nil {
		return got, err
	}
	return got, os.WriteFile(filepath.Join(c.dir, do.File), content[do.Offset:do.Offset+do.Length], 0o600)
}

// mc is MinIO's client.
var mc = client{name: "mc", start: startMC, isCommand: true, cannot: map[string]string{
	"copy in parts, *":                   "mc copies in parts above 5 GiB only",
	"copy onto itself, SSE-KMS to SSE-C": mcOneMode,
	"copy onto itself, SSE-C *":          mcOneMode,
	"presigned GET, SSE-C":               "mc share signs no headers",
	"presigned PUT, *":                   "mc share upload signs a POST policy",
}}

const mcOneMode = "mc has one mode for a path"

func startMC(t *testing.T, b *bed) doer {
	c := newCommand(t, b, "mc", "go install github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9")
	if out, err := exec.Command(c.program, "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), "MinIO") {
		t.Skipf("%s is not MinIO's client", c.program)
	}
	text, err := os.ReadFile(b.ca)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(b.work, ".mc/certs/CAs"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(b.work, ".mc/certs/CAs/gateway.crt"), text, 0o600))
	c.environment = append(c.environment, fmt.Sprintf("MC_HOST_gw=https://%s:%s@%s", b.user, b.secret, strings.TrimPrefix(b.url, "https://")),
		"MC_CONFIG_DIR="+filepath.Join(b.work, ".mc"), "MC_QUIET=true", "MC_DISABLE_PAGER=true")
	at := func(key string) string { return "gw/" + bucket + "/" + key }
	return func(ctx context.Context, do task) (answer, error) {
		flags := mcFlags(at(do.Key), do.Mode)
		switch do.Do {
		case "put":
			return c.do(ctx, append(append([]string{"put", "--part-size", "5MiB"}, flags...), do.File, at(do.Key))...)
		case "get":
			return c.do(ctx, append(append([]string{"cp"}, flags...), at(do.Key), do.File)...)
		case "range":
			return c.save(ctx, do.File, do.Length, append(append([]string{"cat", "--offset", fmt.Sprint(do.Offset)}, mcCustomer(at(do.Key), do.Mode)...), at(do.Key))...)
		case "copy":
			return c.do(ctx, slices.Concat([]string{"cp"}, mcCustomer(at(do.From), do.FromMode), flags, []string{at(do.From), at(do.Key)})...)
		case "list":
			return c.sizes(ctx, func(line string) (string, int64, error) {
				var o struct {
					Key  string
					Size int64
				}
				err := json.Unmarshal([]byte(line), &o)
				return o.Key, o.Size, err
			}, "ls", "--json", "--recursive", at(do.Key))
		case "presign-get":
			out, got, err := c.run(ctx, "share", "download", "--json", "--expire", "1h", at(do.Key))
			var shared struct{ Share string }
			if err == nil && got.Error == "" {
				err = json.Unmarshal(out, &shared)
			}
			got.URL = shared.Share
			return got, err
		case "sync":
			return c.moved(ctx, `"source":`, append(append([]string{"mirror", "--json"}, flags...), do.File, at(do.Key))...)
		}
		return answer{}, errors.ErrUnsupported
	}
}

// mcFlags say how the object of a path is stored.
func mcFlags(path string, m mode) []string {
	switch m.Name {
	case "SSE-S3":
		return []string{"--enc-s3", path}
	case "SSE-KMS":
		return []string{"--enc-kms", path + "=" + m.KeyID}
	}
	return mcCustomer(path, m)
}

func mcCustomer(path string, m mode) []string {
	if m.Customer == nil {
		return nil
	}
	return []string{"--enc-c", path + "=" + base64.RawStdEncoding.EncodeToString(m.Customer)}
}
