"""Every table there is, by importing each subject's module: `metadata` is whole afterwards."""

from . import jobs as jobs
from . import ledger as ledger
from . import metadata as metadata
from . import tokens as tokens
from . import vfs as vfs
from . import vfs_uploads as vfs_uploads
