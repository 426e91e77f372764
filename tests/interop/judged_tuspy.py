"""One upload by tuspy: `judged_tuspy.py URL FILE`."""

import sys

from tusclient.client import TusClient

url, file = sys.argv[1:]
how = {"chunk_size": 1 << 20, "retries": 3, "retry_delay": 1, "upload_checksum": True}
TusClient(url).uploader(file, metadata={"filename": "judge.bin"}, **how).upload()
