package message

import (
	"errors"
	"net"
	"regexp"
	"syscall"

	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"
)

// Bucket returns an error of a whole bucket as a [Problem].
func Bucket(name string, err error) error {
	return about(name, err, func(err error) Words {
		if gcerrors.Code(err) == gcerrors.NotFound {
			return say("no such bucket")
		}
		return storeWords(err)
	})
}

// gocloudPrefix is what Go CDK writes before an error of an object. Its errors have
// no other way to tell what is theirs and what is the store's.
var gocloudPrefix = regexp.MustCompile(`\bblob (\(key "([^"\\]|\\.)*"\) )?\(code=\w+\): `)

// storeWords returns the words for an error of a store of objects.
func storeWords(err error) Words {
	var api smithy.APIError
	var dial *net.OpError
	switch {
	case errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket":
		return say("no such bucket")
	case gcerrors.Code(err) == gcerrors.NotFound:
		return say("no such object")
	case errors.As(err, &api) && api.ErrorMessage() != "":
		return say("the store refuses: %s: %s", api.ErrorCode(), api.ErrorMessage())
	case errors.As(err, &api):
		return say("the store refuses: %s", api.ErrorCode())
	case errors.As(err, &dial):
		return say("the store does not answer: %v", dial)
	case errors.Is(err, syscall.EXDEV):
		return say("the temporary directory is on another file system: add no_tmp_dir=true to the URL, or set TMPDIR")
	}
	return say("%s", packagePrefix.ReplaceAllString(gocloudPrefix.ReplaceAllString(Plain(err), ""), ""))
}
