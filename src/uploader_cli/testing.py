"""For test authors: the bundled server in this process, its faults and its files."""

from uploader_cli.features.demo.testing import UploadServer as UploadServer
from uploader_cli.features.demo.testing import running_server as running_server
