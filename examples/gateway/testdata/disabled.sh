# The key that $KEY names is disabled.
set -uo pipefail
aws() { command aws --endpoint-url "$URL" "$@"; }
aws s3api get-object --bucket photos --key small.key got 2>&1 && exit 1
aws s3api put-object --bucket photos --key new --body small --server-side-encryption aws:kms --ssekms-key-id "$KEY" 2>&1 && exit 1
aws s3api head-object --bucket photos --key new >/dev/null 2>&1 && exit 1
aws s3 cp --quiet s3://photos/small got && cmp small got
