# s3cmd puts and gets, at once and in parts. It checks MD5s.
set -euo pipefail
s3cmd() {
	command s3cmd --config=/dev/null --access_key="$AWS_ACCESS_KEY_ID" --secret_key="$AWS_SECRET_ACCESS_KEY" --region=us-east-1 \
		--host="${URL#https://}" --host-bucket="${URL#https://}" --ca-certs="$AWS_CA_BUNDLE" ${quiet---quiet} --multipart-chunk-size-mb=5 "$@"
}
for file in small big; do
	s3cmd put "$file" "s3://photos/s3cmd/$file"
	s3cmd put --server-side-encryption --server-side-encryption-kms-id="$KEY" "$file" "s3://photos/s3cmd/$file.kms"
	for name in "$file" "$file.kms"; do
		s3cmd get --force "s3://photos/s3cmd/$name" got 2>said
		cmp "$file" got
		! grep -i warning said || exit 1
	done
done
quiet='' s3cmd info s3://photos/s3cmd/small >said
grep -q "$(md5sum <small | cut -d' ' -f1)" said
mkdir -p s3cmd && cp small s3cmd/
s3cmd sync s3cmd/ s3://photos/s3cmd/sync/
s3cmd del --recursive --force s3://photos/s3cmd/
echo "as it should be"
