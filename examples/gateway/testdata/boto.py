"""boto3 puts, gets and copies objects in every mode, at once and in parts."""
import os

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client("s3", endpoint_url=os.environ["URL"], verify=os.environ["AWS_CA_BUNDLE"],
                  config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1}))
bucket = "photos"
key = os.urandom(32)
customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
source = {"CopySource" + name: value for name, value in customer.items()}
write = {"default": {}, "SSE-S3": {"ServerSideEncryption": "AES256"}, "SSE-KMS": {"ServerSideEncryption": "aws:kms"}, "SSE-C": customer}
read = {mode: customer if mode == "SSE-C" else {} for mode in write}
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)

for size in (0, 1, 16384, 100001, 11 << 20):
    content = os.urandom(size)
    for mode in write:
        name = f"boto/{mode}/{size}"
        path = "boto.tmp"
        with open(path, "wb") as f:
            f.write(content)
        s3.upload_file(path, bucket, name, ExtraArgs=write[mode], Config=parts)
        s3.download_file(bucket, name, path, ExtraArgs=read[mode], Config=parts)
        with open(path, "rb") as f:
            assert f.read() == content, name
        head = s3.head_object(Bucket=bucket, Key=name, **read[mode])
        assert head["ContentLength"] == size, name
        if size > 10:
            got = s3.get_object(Bucket=bucket, Key=name, Range=f"bytes={size // 2}-{size // 2 + 9}", **read[mode])
            assert got["Body"].read() == content[size // 2:size // 2 + 10], name
        if size == 100001:
            for to in write:
                s3.copy_object(Bucket=bucket, Key="boto/copy", CopySource={"Bucket": bucket, "Key": name},
                               **write[to], **(source if mode == "SSE-C" else {}))
                assert s3.get_object(Bucket=bucket, Key="boto/copy", **read[to])["Body"].read() == content, (mode, to)

sizes = {o["Key"]: o["Size"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="boto/SSE-")["Contents"]}
assert all(name.endswith(f"/{size}") for name, size in sizes.items()), sizes
assert len(sizes) == 15, sizes

for code, call in {
    "InvalidArgument": lambda: s3.put_object(Bucket=bucket, Key="new", ServerSideEncryption="aes:kms"),
    "KMS.NotFoundException": lambda: s3.put_object(Bucket=bucket, Key="new", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/none"),
    "InvalidRequest": lambda: s3.get_object(Bucket=bucket, Key="boto/SSE-C/1"),
    "AccessDenied": lambda: s3.get_object(Bucket=bucket, Key="boto/SSE-C/1", SSECustomerAlgorithm="AES256", SSECustomerKey=os.urandom(32)),
}.items():
    try:
        call()
    except ClientError as e:
        assert e.response["Error"]["Code"] == code, e
    else:
        raise AssertionError(f"not refused: {code}")
print("as it should be")
