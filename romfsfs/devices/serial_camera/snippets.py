"""The MicroPython that runs on the camera: short, self-contained, for every firmware since 1.24.

Each function here returns the source of one command. Everything is inside a function that is
deleted again, so a user's globals stay as they were. Long loops print a dot now and then, so
that the host limits silence and not duration. Memory: one 4 KiB buffer.

Two transfer loops run on the camera for the length of a transfer:

READ: lines `offset length check` (hex; check = offset ^ length) are answered by the bytes and
their CRC-32, seeded with the offset so that the right bytes of the wrong place are noticed.
Length 0 ends it. A line that makes no sense is ignored; the host asks again.

WRITE: frames of a header and a payload, numbered. The header is 24 characters of base64 for,
little-endian,
    u8 operation, u8 marker 0xA5, u16 number, u32 offset, u32 length, u16 bytes of the payload on
    the wire, u32 CRC-32 of all the rest, with the payload as it will be programmed.
Operations: E erase a range, P erase from the start up to offset + length, W write the payload,
F finish (ioctl 5), Q end of the loop. Answers, one line each:
    k NUMBER ANSWER   done; ANSWER is what the driver returned (>= 0; of F also a negative errno)
    r NUMBER          that frame is the next one expected: send again from there
    e NUMBER ANSWER   the driver refused with a negative errno; the loop ends
    t                 the host was silent for too long; the loop ends
A frame is carried out once, however often it is sent.

Reading standard input waits until all that was asked for has come, whatever `poll` said
(MicroPython's shared/runtime/sys_stdio_mphal.c), so a loop that waits for the rest of a frame can
only be ended from outside, by Ctrl-C. That is never switched off, and no frame contains its byte
(`frames.escaped`): any later program can interrupt the loop at any moment, as it can any script.
Both loops also end by themselves if nothing comes for 10 s between two frames (unless the firmware
has no poll). Without stdin.buffer or stdout.buffer the payloads and chunks travel as base64.

Modules are imported by their u names where they have one: those are always the firmware's own,
while a file in /rom, /flash or on the SD card hides a module of the plain name (see
docs/cameras.md). vfs, sys, uctypes and micropython cannot be hidden.
"""

from __future__ import annotations

#: Prints its answer twice: a garbled digit would make it another camera.
PROBE = """\
def _rf():
 import sys,gc
 def q(f):
  try:
   return f()
  except Exception:
   return None
 def m(n):
  try:
   return __import__('u'+n)
  except ImportError:
   return __import__(n)
 i=sys.implementation
 o=q(lambda:__import__('omv'))
 io=q(lambda:__import__('vfs').rom_ioctl)
 h=lambda n,a:q(lambda:getattr(m(n),a)) is not None
 ps=[]
 if io:
  for k in range(max(0,q(lambda:io(1)) or 0)):
   p=io(2,k)
   e=q(lambda:io(6,k))
   if hasattr(p,'ioctl'):
    b=bytearray(16)
    p.readblocks(0,b,0)
    z=p.ioctl(5,0)
    ps.append(('block',p.ioctl(4,0)*z,z,bytes(b),0))
   elif isinstance(p,int):
    ps.append(('none',0,p,b'',0))
   else:
    ps.append(('memory',len(p),e,bytes(p[:16]),q(lambda:io(3,k,0))))
 def l():
  u=m('os')
  w=u.getcwd()
  if w=='/rom':
   return (w,)
  k=lambda e:e[1]&0x4000 or e[0].split('.')[-1] in ('py','mpy')
  return (w,)+tuple([e[0] for e in u.ilistdir() if k(e)][:64])
 r=repr({
  'here':q(l) or (),
  'machine':q(lambda:i._machine) or q(lambda:m('os').uname().machine) or '',
  'arch':q(lambda:o.arch()) or '',
  'omv':q(lambda:o.version_string()) or '',
  'uid':q(lambda:m('binascii').hexlify(m('machine').unique_id()).decode()) or '',
  'mpy':q(lambda:i._mpy) or 0,
  'release':q(lambda:m('os').uname().release) or '.'.join(str(x) for x in i.version[:3]),
  'partitions':ps,
  'stdin':q(lambda:sys.stdin.buffer) is not None,
  'stdout':q(lambda:sys.stdout.buffer) is not None,
  'sha256':h('hashlib','sha256'),
  'crc32':h('binascii','crc32'),
  'poll':h('select','poll'),
  'heap':q(lambda:(gc.collect(),gc.mem_free())[1]) or 0})
 print(r)
 print(r)
_rf()
del _rf
"""


def _command(body: str) -> str:
    """The lines of `body` (indented by one space) as a function that is run and deleted."""
    return f"def _rf():\n{body}_rf()\ndel _rf\n"


def _access(kind: str, partition: int) -> str:
    """Lines that define P, the partition, and R(offset, length <= 4096), its bytes."""
    lines = f" import sys,vfs\n P=vfs.rom_ioctl(2,{partition})\n"
    if kind == "memory":
        # A memoryview's offset has 24 bits on 32-bit MicroPython: its address reaches everything.
        return lines + (
            " try:\n"
            "  import uctypes\n"
            "  A=uctypes.addressof(P)\n"
            "  R=lambda o,n:uctypes.bytearray_at(A+o,n)\n"
            " except ImportError:\n"
            "  R=lambda o,n:P[o:o+n]\n"
        )
    return lines + (
        " Z=P.ioctl(5,0)\n"
        " B=memoryview(bytearray(4096))\n"
        " def R(o,n):\n"
        "  P.readblocks(o//Z,B[:n],o%Z)\n"
        "  return B[:n]\n"
    )


def digest(kind: str, partition: int, start: int, end: int) -> str:
    """Prints a dot for each 256 KiB, then the SHA-256 of the bytes start..end, twice."""
    return _command(
        _access(kind, partition) + " import uhashlib as hashlib,ubinascii as binascii\n"
        " h=hashlib.sha256()\n"
        f" o={start}\n"
        f" while o<{end}:\n"
        f"  n=min(4096,{end}-o)\n"
        "  h.update(R(o,n))\n"
        "  o+=n\n"
        "  if not o&0x3ffff:\n"
        "   sys.stdout.write('.')\n"
        " print((binascii.hexlify(h.digest()).decode()+' ')*2)\n"
    )


def checksums(kind: str, partition: int, *, start: int, end: int, step: int, crc32: bool) -> str:
    """Prints 8 hex digits for each `step` bytes of start..end: CRC-32, or SHA-256's first 4 bytes.

    Takes seconds and answers 8 bytes a block, so no dots are printed.
    """
    make, update, take = (
        ("0", "c=crc32(R(o,n),c)", "c")
        if crc32
        else ("sha256()", "c.update(R(o,n))", "int.from_bytes(c.digest()[:4],'big')")
    )
    return _command(
        _access(kind, partition)
        + (" from ubinascii import crc32\n" if crc32 else " from uhashlib import sha256\n")
        + f" o={start}\n"
        f" while o<{end}:\n"
        f"  e=min(o+{step},{end})\n"
        f"  c={make}\n"
        "  while o<e:\n"
        "   n=min(4096,e-o)\n"
        f"   {update}\n"
        "   o+=n\n"
        f"  sys.stdout.write('%08x'%{take})\n"
    )


def peek(kind: str, partition: int, *ranges: tuple[int, int]) -> str:
    """Prints ranges (offset, length) of the partition in hex, one after the other, all of it twice,
    so that a garbled digit shows."""
    return _command(
        _access(kind, partition) + " import ubinascii as binascii\n"
        " h=lambda o,n:binascii.hexlify(R(o,n)).decode()\n"
        f" print((''.join([h(o,n) for o,n in {ranges!r}])+' ')*2)\n"
    )


def read_loop(kind: str, partition: int, *, raw: bool, crc32: bool, poll: bool) -> str:
    """The READ loop."""
    check = "crc32(d,o)" if crc32 else "0"
    answer = (
        f"  w(d)\n  w(struct.pack('<I',{check}))\n"
        if raw
        else f"  w(b2a_base64(d).decode().strip()+' %08x\\n'%{check})\n"
    )
    return _command(
        _access(kind, partition) + " import ustruct as struct\n"
        " from ubinascii import b2a_base64\n p=None\n"
        + (" from ubinascii import crc32\n" if crc32 else "")
        + (_POLL if poll else "")
        + f" w=sys.stdout.{'buffer.' if raw else ''}write\n"
        " print('go')\n"
        " while not p or p.poll(10000):\n"
        "  try:\n"
        "   o,n,c=[int(x,16) for x in sys.stdin.readline().split()]\n"
        "  except ValueError:\n"
        "   continue\n"
        "  if o^n!=c or n>4096:\n"
        "   continue\n"
        "  if not n:\n"
        "   break\n"
        "  d=R(o,n)\n" + answer
    )


_FRAMES = """\
 def get():
  c=L
  while c==L:
   if p and not p.poll(10000):
    return 1
   c=rd(1)
  try:
   H=a2b_base64(c+rd(23))
   if len(H)==18 and H[1]==165:
    n=H[12]|H[13]<<8
    if n<8193:
     return (H,dec(rd(n)))
  except ValueError:
   pass
  return 0
 def drop():
  while p and p.poll(100):
   rd(1)
"""

_WRITE_MEMORY = """\
 X=vfs.rom_ioctl
 def E(o,n):
  return X(3,K,o,n)
 def W(o,d):
  return X(4,K,o,d)
 def F():
  return X(5,K)
"""

# An interrupt while MRAM is programmed wedges it, and the firmware does not mask them (openmv-ota,
# `_write_masked`). 256 bytes take 0.75 ms, which USB can wait; the slice is made before that.
_WRITE_MRAM = """\
 from umachine import disable_irq,enable_irq
 def W(o,d):
  for i in range(0,len(d),256):
   v=d[i:i+256]
   q=disable_irq()
   try:
    a=X(4,K,o+i,v)
   finally:
    enable_irq(q)
   if a<0:
    break
  return a
"""

# A block device that fails raises OSError, with a text in place of the number (mimxrt, writing) or
# a negative number (esp32), or answers anything but 0 (mimxrt, erasing: 1).
_WRITE_BLOCKS = """\
 def E(o,n):
  for b in range(o//Z,(o+n)//Z):
   if P.ioctl(6,b):
    return -5
  return 0
 def W(o,d):
  return P.writeblocks(o//Z,d,o%Z) or 0
 def F():
  return 0
"""

_WRITE_LOOP = """\
 s=0
 print('go')
 while 1:
  f=get()
  if f==1:
   print('t')
   break
  if f:
   H,d=f
   if crc32 and crc32(d,crc32(H[:14]))!=struct.unpack('<I',H[14:])[0]:
    f=0
  if not f:
   drop()
   print('r',s)
   continue
  op,_,i,o,n=struct.unpack('<BBHII',H[:12])
  if op==81:
   break
  if i!=s:
   print('r',s)
   continue
  try:
   a=W(o,d) if op==87 else E(o,n) if op==69 else X(3,K,o+n) if op==80 else F()
  except OSError as e:
   a=isinstance(e.errno,int) and -abs(e.errno) or -5
  a=int(a) if isinstance(a,int) else -5
  if op!=70:
   I(o,n)
  if a<0 and op!=70:
   print('e',s,a)
   break
  print('k',s,a)
  s=s+1&65535
"""

# Cleans and invalidates the cache line of an address: DCCIMVAC, on every Cortex-M7.
_CACHED = """\
 from umachine import mem32
 def I(o,n):
  for i in range(o&-32,o+n,32):
   mem32[0xe000ef70]=A+i
"""

_POLL = " import uselect\n p=uselect.poll()\n p.register(sys.stdin,1)\n"


def write_loop(
    kind: str, partition: int, *, raw: bool, crc32: bool, poll: bool, cached: bool, mram: bool
) -> str:
    """The WRITE loop. Without binascii.crc32 frames go unchecked; the digest afterwards tells.
    cached: see `Geometry`; what was erased or written is dropped from the cache. mram: interrupts
    are masked while it is written."""
    body = _access(kind, partition) + f" import ustruct as struct\n K={partition}\n p=None\n"
    body += " from ubinascii import a2b_base64\n"
    body += " from ubinascii import crc32\n" if crc32 else " crc32=None\n"
    if poll:
        body += _POLL
    if raw:
        body += (
            " rd=sys.stdin.buffer.read\n L=b'\\n'\n"
            " dec=lambda d:d.replace(b'\\x04\\x05',b'\\x03').replace(b'\\x04\\x06',b'\\x04')\n"
        )
    else:
        body += " rd=sys.stdin.read\n L='\\n'\n dec=a2b_base64\n"
    body += _FRAMES + (_CACHED if cached else " I=lambda o,n:0\n")
    body += _WRITE_MEMORY if kind == "memory" else _WRITE_BLOCKS
    body += _WRITE_MRAM if mram else ""
    return _command(body + _WRITE_LOOP)


def open_model(path: str) -> str:
    """Opens a model and frees it. Prints what the firmware says, then a dictionary twice, or `None`
    where it runs no models.

    uml is the firmware's own module; a user's `ml.py` could hide `ml`. `Model` takes a second
    argument in the present firmware (openmv: modules/py_ml.c) and one in older ones.
    """
    return _command(
        " import gc\n"
        " try:\n"
        "  import uml\n"
        " except ImportError:\n"
        "  print('None\\nNone')\n"
        "  return\n"
        " gc.collect()\n"
        " q=lambda n:getattr(m,n,None)\n"
        " try:\n"
        "  try:\n"
        f"   m=uml.Model({path!r},None)\n"
        "  except TypeError:\n"
        f"   m=uml.Model({path!r})\n"
        "  r={n:q(n) for n in "
        "('ram','input_shape','input_dtype','output_shape','output_dtype')}\n"
        " except Exception as e:\n"
        "  r={'error':str(e) or type(e).__name__,'type':type(e).__name__}\n"
        " m=None\n"
        " gc.collect()\n"
        " r=repr(r)\n"
        " print(r)\n"
        " print(r)\n"
    )


UNMOUNT = """\
def _rf():
 import vfs
 try:
  vfs.umount('/rom')
 except OSError:
  pass
_rf()
del _rf
"""


def mount(partition: int) -> str:
    """Mounts the partition at /rom again, as the firmware does when it starts; ignores OSError."""
    return _command(
        " import vfs\n"
        " try:\n"
        f"  vfs.mount(vfs.VfsRom(vfs.rom_ioctl(2,{partition})),'/rom')\n"
        " except OSError:\n"
        "  pass\n"
    )


BOOTLOADER = "import umachine\numachine.bootloader()\n"
