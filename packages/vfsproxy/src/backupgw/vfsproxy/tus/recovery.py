"""Finding out what became of an upload whose last request died."""

from __future__ import annotations

import dataclasses
import logging

from backupgw.kvstore.backends.errors import ObjectNotFound

from .bodies import Body, Space, ended, keep_room, open_body, remove_staged, whole_piece
from .holds import Holding
from .receiving import Terms
from .records import Kind, State, Upload, UploadStore
from .serving import gone

logger = logging.getLogger(__name__)


def recovered(store: UploadStore, hold: Holding, space: Space, terms: Terms) -> Upload:
    """Return an upload as it really stands, and write that down.

    Raises:
        FileRefusal: 410, the volume has nothing of it.
        QuotaExceeded: it had sent nothing yet, and there is no room for it any more.
        BackendError: the volume failed; everything is as it was.
    """
    upload = hold.upload
    attempt = f"{hold.held.epoch}-r"
    if upload.state is State.ENDING and ended(space, upload):
        return _done(store, hold, space, terms)
    try:
        body = open_body(space, upload, attempt)
    except ObjectNotFound:
        if upload.state is State.ENDING and ended(space, upload, lost=True):
            return _done(store, hold, space, terms)
        if not upload.offset:
            # Nothing that was promised to be kept is lost.
            body = open_body(space, dataclasses.replace(upload, token=None), attempt)
            return _kept(store, hold, space, terms, body)
        logger.warning("upload %s is lost: the volume has nothing of it", upload.id)
        store.drop(hold.held)
        raise gone() from None
    return _kept(store, hold, space, terms, body)


def _kept(store: UploadStore, hold: Holding, space: Space, terms: Terms, body: Body) -> Upload:
    kept = store.keep(hold.held, body.keep(), terms.lifetime, release=False)
    keep_room(space, kept)
    return kept


def _done(store: UploadStore, hold: Holding, space: Space, terms: Terms) -> Upload:
    upload = hold.upload
    pieces = upload.pieces
    if upload.kind is not Kind.PARTIAL:
        remove_staged(space, upload)
        pieces = ()
    elif not pieces:
        pieces = whole_piece(space, upload)
    assert upload.length is not None  # or it could not have been ending
    done = dataclasses.replace(
        upload, state=State.DONE, offset=upload.length, token=None, pieces=pieces
    )
    return store.keep(hold.held, done, terms.after(done), release=False)
