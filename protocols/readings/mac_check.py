"""The MAC check: before a result leaves a party, everything opened in the run is checked at once.

Each round opens a vector E of masked values by exchanging shares, and nothing proves a share right when it arrives: the
openings are *optimistic*.  But the parties also hold shares m_i of alpha E, from evaluating the program on MAC shares
(``PartyContext``), under a key alpha = sum alpha_i of which each knows its share alone.  After the last opening,

1. every party opens its part of a *coin*, to which it committed with its first opening, and sends a hash of everything
   it has seen opened, of the masked inputs and of the stored tensors' public parts;
2. the coin gives independent uniform coefficients chi, one per opened element, and every party commits to
   sigma_i = sum chi (m_i - alpha_i E);
3. every party opens sigma_i, and all check that the sigma_i add up to 0.

Security.  If some E is off by an error, the sigma_i add up to alpha times a combination of the errors under chi, plus
what the cheaters add to their own; to make it 0 they must guess alpha, or have errors that cancel under chi.  Each has
probability 1/p: chi is independent for each element, and unknown until every honest party has the last opening, since
an honest party opens its part of the coin only then.  (Powers of one challenge would give m/p for m openings.)  When
nobody has cheated, the honest sigma_i are uniform subject to a sum that the others know already.  When somebody
has, they may tell alpha: so the run is over, and its key and material with it.

A point-to-point send is not a broadcast: the hashes show a party that told two parties different things, before any
sigma is made.  Commitments bind the run, the party and the purpose, so that one party's cannot serve as another's.
The key is made for one run, and a run has one check: no two checks, and no opening beside a check, ever happen under
one key, which is what the attacks of ePrint 2025/789 on concurrent checks need.

Cost: 3 rounds (4 if the program opens nothing) and `CHECK_ELEMENTS` elements to each other party, whatever the program.
Source: Damgard, Pastro, Smart and Zakarias (SPDZ), CRYPTO 2012; the check of opened values without revealing alpha:
Damgard, Keller, Larraia, Pastro, Scholl and Smart, ESORICS 2013.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Generator, Sequence

import numpy as np

from mpc.cost import WORDS
from mpc.errors import MacCheckError, ProgramError
from mpc.operation import PartyContext
from mpc.rings import Array, Buffer, field_of, known_rings
from mpc.rings.prg import SEED_BYTES, Seed

Round = Sequence[Buffer]
"""What a party sends to every other one in a round: a vector for each ring, in the order of ``Program.rings``."""

Rounds = Generator[Round, Sequence[Round], None]
"""What to send to every other party, and what they sent, in order of party."""

_COIN = b"coin"
_SIGMA = b"sigma"
_NONCE_BYTES = 32
SIGMA_BYTES = 8 + 8 * WORDS
"""Of the opening of a sigma: one element, and the nonce's words."""


class OtherTranscript(MacCheckError):  # noqa: N818 - says what happened
    """The party at ``position`` among the others says that it has seen other values than this one."""

    def __init__(self, position: int) -> None:
        super().__init__("the parties were not sent the same values: somebody cheated; nothing was revealed")
        self.position = position


class BrokenCommitment(MacCheckError):  # noqa: N818 - says what happened
    """The party at ``position`` among the others has opened another ``what`` than it had committed to."""

    def __init__(self, position: int, what: str) -> None:
        super().__init__(f"a party opened another {what} than it had committed to; nothing was revealed")
        self.position, self.what = position, what


class MacCheck:
    """One party's part in the check of one run.

    ``macs`` is the context whose unit is the party's share of the key; ``session`` is a hash of the run and all that it
    is bound to (``session_of``), the same at every party.
    """

    def __init__(self, macs: PartyContext, session: bytes) -> None:
        self._context = macs
        self._field = field_of(macs.rings)
        self._session = session
        self._transcript = hashlib.sha256(b"tessera transcript" + self._session)
        self._coin = secrets.token_bytes(_NONCE_BYTES)
        self._coin_commitments: list[bytes] = []
        self._opened: list[Array] = []

    def __repr__(self) -> str:
        return f"<MacCheck of {self._context!r}, {len(self._opened)} rounds>"

    def first_commitment(self) -> Buffer | None:
        """The commitment to this party's part of the coin, `WORDS` elements for the first opening; later None."""
        return None if self._coin_commitments else to_words(self._commit(_COIN, self._context.index, self._coin))

    def take_commitments(self, received: Sequence[Buffer]) -> None:
        """The other parties', in order of party.  All must hold the same."""
        self._coin_commitments = [from_words(words) for words in received]
        everyone = list(self._coin_commitments)
        everyone.insert(self._context.index, self._commit(_COIN, self._context.index, self._coin))
        self.note(self._hash(b"coin commitments", *everyone))

    def note(self, public: bytes | memoryview) -> None:
        """All parties must hold the same of this."""
        self._transcript.update(public)

    def opened(self, values: Array) -> None:
        """A round's opened vector, of which ``run`` is given the MAC shares."""
        self.note(self._field.buffer(values).data)
        self._opened.append(values)

    def run(self, mac_shares: Callable[[], Sequence[Array]]) -> Rounds:
        """The check; ``mac_shares`` gives, per round, this party's shares of the MACs of what was opened.

        Raises MacCheckError: then the result must not leave this party.
        """
        commitment = self.first_commitment()
        if commitment is not None:  # nothing was opened
            self.take_commitments((yield from self._exchange(commitment)))
        seen = self._transcript.digest()
        received = yield from self._exchange(np.concatenate([to_words(seen), to_words(self._coin)]))
        coins = self._coins(seen, received)
        coefficients = Seed(self._hash(b"coefficients", *coins)[:SEED_BYTES])
        sigma = self._sigma(coefficients, mac_shares())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        opening = np.concatenate([self._field.buffer(sigma), to_words(nonce)])
        commitments = yield from self._exchange(to_words(self._commit(_SIGMA, self._context.index, opening.tobytes())))
        openings = yield from self._exchange(opening)
        total = self._field.copy(sigma)
        for position, (party, commitment, other) in enumerate(zip(self._others(), commitments, openings, strict=True)):
            committed = from_words(commitment) == self._commit(_SIGMA, party, other.tobytes())
            if not committed or not from_words(other[1:]) or not self._field.accumulate(total, other[:1]):
                raise BrokenCommitment(position, "value")
        if not self._field.is_zero(total):
            raise MacCheckError("the MACs of the opened values are wrong: a party cheated; nothing was revealed")

    def _exchange(self, outgoing: Buffer) -> Generator[Round, Sequence[Round], Sequence[Buffer]]:
        """One round.  All send equally much: an opening without a sigma would make the sum empty, and so not wrong."""
        received = yield [outgoing]
        check_round([outgoing], received, self._context.parties)
        return [other[0] for other in received]

    def _coins(self, seen: bytes, received: Sequence[Buffer]) -> list[bytes]:
        """Every party's part of the coin, in order, once all have seen the same and opened what they committed to."""
        coins = []
        others = zip(self._others(), self._coin_commitments, received, strict=True)
        for position, (party, commitment, words) in enumerate(others):
            if from_words(words[:WORDS]) != seen:
                raise OtherTranscript(position)
            coin = from_words(words[WORDS:])
            if not is_coin(self._session, party, commitment, coin):
                raise BrokenCommitment(position, "coin")
            coins.append(coin)
        coins.insert(self._context.index, self._coin)
        return coins

    def _sigma(self, coefficients: Seed, mac_shares: Sequence[Array]) -> Array:
        """One element: sum over all rounds of chi (m_i - alpha_i E)."""
        field = self._field
        sigma = field.zeros((1,))
        for number, (values, macs) in enumerate(zip(self._opened, mac_shares, strict=True)):
            chi = field.sample(coefficients.derive(f"round {number}"), values.shape)
            of_macs, of_values = field.dots(chi, macs, values)
            sigma = field.add(sigma, field.subtract(of_macs, field.scale(of_values, self._context.unit)))
        return sigma

    def _others(self) -> list[int]:
        return [party for party in range(self._context.parties) if party != self._context.index]

    def _commit(self, purpose: bytes, party: int, secret: bytes) -> bytes:
        return _commitment(self._session, purpose, party, secret)

    def _hash(self, *parts: bytes) -> bytes:
        return _hash(self._session, *parts)


def session_of(program: str, parties: int, run: bytes) -> bytes:
    """What commitments are bound to: the program's digest, the number of parties, and a name of the run."""
    return hashlib.sha256(bytes.fromhex(program) + parties.to_bytes(4, "little") + run).digest()


def is_coin(session: bytes, party: int, commitment: bytes, coin: bytes) -> bool:
    """Whether that is the coin to which the party committed."""
    return commitment == _commitment(session, _COIN, party, coin)


def is_sigma(session: bytes, party: int, commitment: bytes, opening: bytes) -> bool:
    """Whether that is the opening, of sigma and a nonce, to which the party committed, and is one at all."""
    if len(opening) != SIGMA_BYTES or commitment != _commitment(session, _SIGMA, party, opening):
        return False
    words, field = np.frombuffer(opening, np.uint64), field_of(known_rings())
    return bool(from_words(words[1:])) and field.accumulate(field.zeros((1,)), words[:1])


def sigmas_fail(openings: Sequence[bytes]) -> bool:
    """Whether all parties' openings of sigma, which are ones (``is_sigma``), show that a MAC was wrong."""
    field = field_of(known_rings())
    total = field.zeros((1,))
    for opening in openings:
        field.accumulate(total, np.frombuffer(opening, np.uint64)[:1])
    return not field.is_zero(total)


def _commitment(session: bytes, purpose: bytes, party: int, secret: bytes) -> bytes:
    """A commitment: hiding, since every secret contains 32 random bytes; binding by SHA-256."""
    return _hash(session, b"commitment", purpose, party.to_bytes(4, "little"), secret)


def _hash(session: bytes, *parts: bytes) -> bytes:
    state = hashlib.sha256(session)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def check_round(outgoing: Round, received: Sequence[Round], parties: int) -> None:
    """Raises ProgramError unless every other party has sent as much as this one, ring by ring."""
    shapes = [vector.shape for vector in outgoing]
    if len(received) != parties - 1 or any([vector.shape for vector in other] != shapes for other in received):
        raise ProgramError("a round takes the same buffers from each other party as are sent")


def to_words(data: bytes) -> Buffer:
    """Bytes as field elements, 32 bits each: what goes over a wire is field elements throughout."""
    return np.frombuffer(data, "<u4").astype(np.uint64)


def from_words(words: Buffer) -> bytes:
    """The bytes; of words that stand for none, none, which are not any honest party's."""
    return b"" if (words >> np.uint64(32)).any() else words.astype("<u4").tobytes()
