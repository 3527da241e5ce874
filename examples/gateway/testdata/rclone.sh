# rclone copies, checks and synchronizes, in every mode.
set -euo pipefail
ca=$AWS_CA_BUNDLE; unset AWS_CA_BUNDLE # with it, rclone does not start
export RCLONE_CONFIG=/dev/null RCLONE_CA_CERT=$ca RCLONE_CONFIG_GW_TYPE=s3 RCLONE_CONFIG_GW_PROVIDER=Other
export RCLONE_CONFIG_GW_ENDPOINT=$URL RCLONE_CONFIG_GW_REGION=us-east-1
export RCLONE_CONFIG_GW_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_GW_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY
export RCLONE_S3_UPLOAD_CUTOFF=5M RCLONE_S3_CHUNK_SIZE=5M RCLONE_S3_NO_CHECK_BUCKET=true
mkdir -p rclone && cp small big rclone/ && : >rclone/empty

customer=(--s3-sse-customer-algorithm AES256 --s3-sse-customer-key 0123456789abcdef0123456789abcdef)
copy() { # copy NAME FLAGS...
	local name=$1; shift
	rclone copy rclone "gw:photos/rclone/$name" "$@"
	rclone copy rclone "gw:photos/rclone/$name" -v "$@" 2>&1 | grep 'Copied' && { echo "$name was copied again"; exit 1; }
	rclone check --download rclone "gw:photos/rclone/$name" "$@" 2>log || { cat log; exit 1; }
}
copy default
copy kms --s3-server-side-encryption aws:kms
copy customer "${customer[@]}"
rclone check rclone gw:photos/rclone/default 2>log || { cat log; exit 1; } # by MD5
[ "$(rclone size gw:photos/rclone/customer --json "${customer[@]}" | grep -o '"bytes":[0-9]*')" = '"bytes":21100000' ]
rclone cat gw:photos/rclone/kms/big --offset 5242870 --count 20 | cmp - <(tail -c +5242871 big | head -c 20)
rclone purge gw:photos/rclone/kms
echo "as it should be"
