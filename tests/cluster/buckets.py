"""Makes the buckets of one S3 server and says who may do what in them: buckets.py ENDPOINT.

The root's credentials come from the environment, as boto3 reads them. Safe to run again.
"""

import json
import sys

import boto3
from botocore.config import Config

READ_AND_WRITE = {
    "object": [
        "PutObject",
        "GetObject",
        "GetObjectVersion",
        "GetObjectAttributes",
        "GetObjectVersionAttributes",
        "GetObjectTagging",
        "GetObjectVersionTagging",
        "PutObjectTagging",
        "PutObjectVersionTagging",
        "DeleteObjectTagging",
        "GetObjectLegalHold",
        "PutObjectLegalHold",
        "GetObjectRetention",
        "AbortMultipartUpload",
        "ListMultipartUploadParts",
    ],
    "bucket": [
        "ListBucket",
        "ListBucketVersions",
        "ListBucketMultipartUploads",
        "GetBucketVersioning",
        "GetBucketObjectLockConfiguration",
    ],
}
EVERYTHING = {"object": ["*"], "bucket": ["*"]}

BACKUPS = {"put": READ_AND_WRITE, "erase": EVERYTHING}
KEYS = {"escrow": EVERYTHING}

# name, who may do what, versioned, with object lock
BUCKETS = [
    ("helpdesk-cold", BACKUPS, True, False),
    ("helpdesk-escrow", KEYS, True, False),
    ("helpdesk-locked", BACKUPS, True, True),
    ("helpdesk-plain", BACKUPS, False, False),
]


def allow(account, bucket, actions):
    for resource, names in ((f"{bucket}/*", actions["object"]), (bucket, actions["bucket"])):
        yield {
            "Effect": "Allow",
            "Principal": {"AWS": [account]},
            "Action": [f"s3:{name}" for name in names],
            "Resource": [f"arn:aws:s3:::{resource}"],
        }


def make(s3, bucket, accounts, versioned, locked):
    if bucket not in {entry["Name"] for entry in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
    if versioned and not locked:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rules = [rule for account, actions in accounts.items() for rule in allow(account, bucket, actions)]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": rules}))


def main(endpoint):
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="eu-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10, "mode": "standard"}),
    )
    for bucket, accounts, versioned, locked in BUCKETS:
        make(s3, bucket, accounts, versioned, locked)


if __name__ == "__main__":
    main(*sys.argv[1:])
