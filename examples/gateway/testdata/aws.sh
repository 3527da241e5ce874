# A session with aws-cli. The environment says where the gateway is.
set -euo pipefail
aws() { command aws --endpoint-url "$URL" "$@"; }
fail() { echo "$*"; exit 1; }
# Without it, presigned URLs have signatures of version 2, which the engine does not know.
printf '[default]\ns3 =\n  signature_version = s3v4\n' >"$AWS_CONFIG_FILE"

head -c 100000 /dev/urandom >small
head -c 21000000 /dev/urandom >big # in parts
head -c 32 /dev/urandom >customer.key

aws s3 mb s3://photos
# aws-cli 2.9 does not know how to allow customer keys, so curl does it.
curl -fsS --cacert "$AWS_CA_BUNDLE" --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
	-H "x-amz-content-sha256: $(sha256sum <allow.xml | cut -d' ' -f1)" -X PUT --data-binary @allow.xml "$URL/photos?encryption="
aws s3api get-bucket-encryption --bucket photos | grep AES256 >/dev/null

# Each mode.
aws s3 cp --quiet small s3://photos/small
aws s3 cp --quiet small s3://photos/small.key --sse aws:kms --sse-kms-key-id "$KEY"
aws s3 cp --quiet small s3://photos/small.customer --sse-c AES256 --sse-c-key fileb://customer.key
aws s3 cp --quiet s3://photos/small got && cmp small got
aws s3 cp --quiet s3://photos/small.key got && cmp small got
aws s3 cp --quiet s3://photos/small.customer got --sse-c AES256 --sse-c-key fileb://customer.key && cmp small got
aws s3 cp --quiet s3://photos/small.customer got 2>error && fail "a customer's object without its key"
aws s3api head-object --bucket photos --key small.key | grep "$KEY" >/dev/null

# In parts, a range, and a copy of parts to another mode.
aws s3 cp --quiet big s3://photos/big.kms --sse aws:kms
aws s3api get-object --bucket photos --key big.kms --range bytes=8388600-8388620 got >/dev/null
cmp got <(tail -c +8388601 big | head -c 21)
aws s3 cp --quiet s3://photos/big.kms s3://photos/big.copy --sse AES256
aws s3 cp --quiet s3://photos/big.copy got && cmp big got
aws s3 cp --quiet big s3://photos/big.customer --sse-c AES256 --sse-c-key fileb://customer.key
aws s3 cp --quiet s3://photos/big.customer got --sse-c AES256 --sse-c-key fileb://customer.key && cmp big got

aws s3 ls s3://photos/ >list
awk '{print $3}' list | sort -u | tr '\n' ' ' | grep -x '100000 21000000 ' >/dev/null || fail "sizes: $(cat list)"
curl -fsS --cacert "$AWS_CA_BUNDLE" "$(aws s3 presign s3://photos/small.key)" | cmp small

# Nothing is copied a second time.
mkdir -p tree/deep && cp small tree/a && cp small tree/deep/b && : >tree/empty
find tree -type f -exec touch -d 2026-01-01 {} + # a listing counts whole seconds, and a newer file is copied
aws s3 sync --quiet tree s3://photos/tree
[ -z "$(aws s3 sync tree s3://photos/tree)" ] || fail "a second sync copies"
aws s3 sync --quiet s3://photos/tree back
diff -r tree back
echo "as it should be"
