"""One end of a pipe to an S3 server: store.py put|get ENDPOINT BUCKET KEY.

Credentials come from the environment, as boto3 reads them; bytes come from standard input or go to standard output.
"""

import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

what, endpoint, bucket, key = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-1", config=Config(s3={"addressing_style": "path"}))
parts = TransferConfig(multipart_chunksize=16 << 20)
if what == "put":
    client.upload_fileobj(sys.stdin.buffer, bucket, key, Config=parts)
else:
    client.download_fileobj(bucket, key, sys.stdout.buffer, Config=TransferConfig(use_threads=False))
