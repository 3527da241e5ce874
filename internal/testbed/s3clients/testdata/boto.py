"""Does the tasks that it reads, with boto3: one in a line of JSON. It answers each with
a line."""
import base64
import json
import os
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client("s3", endpoint_url=os.environ["URL"], verify=os.environ["AWS_CA_BUNDLE"],
                  config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1}))
bucket = os.environ["BUCKET"]
part_size = int(os.environ["PART_SIZE"])
in_parts = TransferConfig(multipart_threshold=part_size, multipart_chunksize=part_size, max_concurrency=4)
at_once = TransferConfig(multipart_threshold=1 << 30)


def read(mode, prefix=""):
    if not mode["customer"]:
        return {}
    key = base64.b64decode(mode["customer"])
    return {prefix + "SSECustomerAlgorithm": "AES256", prefix + "SSECustomerKey": key}


def write(mode):
    if mode["name"] == "SSE-S3":
        return {"ServerSideEncryption": "AES256"}
    if mode["name"] == "SSE-KMS":
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": mode["keyID"]}
    return read(mode)


def presign(task, method, params):
    """Signs a request. boto3 puts the headers of encryption into the signature, and
    leaves it to the caller to send them."""
    sent = {}

    def note(request, **_):
        sent.update({name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()
                     if name.lower().startswith("x-amz-server-side")})
    operation = {"get_object": "GetObject", "put_object": "PutObject"}[method]
    s3.meta.events.register("before-sign.s3." + operation, note)
    url = s3.generate_presigned_url(method, Params={"Bucket": bucket, "Key": task["key"], **params})
    s3.meta.events.unregister("before-sign.s3." + operation, note)
    return {"url": url, "headers": sent}


def do(task):
    mode, key, file = task["mode"], task["key"], task["file"]
    config = in_parts if task["parts"] else at_once
    if task["do"] == "put":
        s3.upload_file(file, bucket, key, ExtraArgs=write(mode), Config=config)
    elif task["do"] == "get":
        s3.download_file(bucket, key, file, ExtraArgs=read(mode), Config=config)
    elif task["do"] == "range":
        last = task["offset"] + task["length"] - 1
        got = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={task['offset']}-{last}", **read(mode))
        with open(file, "wb") as f:
            f.write(got["Body"].read())
    elif task["do"] == "copy":
        source = {"Bucket": bucket, "Key": task["from"]}
        extra = {**write(mode), **read(task["fromMode"], "CopySource")}
        if task["parts"]:
            s3.copy(source, bucket, key, ExtraArgs=extra, Config=config)
        else:
            s3.copy_object(Bucket=bucket, Key=key, CopySource=source, **extra)
    elif task["do"] == "list":
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, PaginationConfig={"PageSize": 2})
        return {"sizes": {o["Key"]: o["Size"] for page in pages for o in page.get("Contents", [])}}
    elif task["do"] == "presign-get":
        return presign(task, "get_object", read(mode))
    elif task["do"] == "presign-put":
        return presign(task, "put_object", write(mode))
    else:
        raise ValueError(task["do"])
    return {}


for line in sys.stdin:
    try:
        answer = do(json.loads(line))
    except ClientError as e:
        answer = {"error": str(e), "code": e.response["Error"]["Code"]}
    except Exception as e:
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
