"""Lua scripts for atomic steps that Redis has no command for.

Each script is sent whole with every call, by `EVAL`. `EVALSHA` would save 2 µs of the server's
time, but needs a second round trip whenever the server has forgotten the script. Meanwhile every
later command on a shared connection would wait.

Errors are caught and returned, because an error that Redis 6.2 raises out of a script has lost its
code. Numbers are handled as text: Lua's are doubles, exact only up to 2**53.
"""

from __future__ import annotations

from typing import Final

# KEYS: the counter. ARGV: the step, and the word "signed" for a counter that may be negative. INCRBY
# alone would create a missing counter. A number that `GETS` has read has a header, which INCRBY does
# not accept.
COUNT: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if not old then return false end
if type(old) == 'table' then return old end
if string.sub(old, 1, 2) == '\\193\\3' then
  old = string.sub(old, 11)
  local bared = redis.pcall('SET', KEYS[1], old, 'KEEPTTL')
  if bared.err then return bared end
end
if ARGV[2] ~= 'signed' and string.sub(old, 1, 1) == '-' then
  return redis.error_reply('ERR value is not an integer or out of range')
end
local new = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(new) == 'table' then return new end
if ARGV[2] ~= 'signed' and new < 0 then
  local stopped = redis.pcall('SET', KEYS[1], '0', 'KEEPTTL')
  return stopped.err and stopped or '0'
end
return redis.pcall('GET', KEYS[1])
"""

# KEYS: the key. One step, so that the value and the expiry are of one write.
GET_AGED: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
local left = redis.pcall('PTTL', KEYS[1])
if type(left) == 'table' then return left end
return {old, string.format('%.0f', left)}
"""

# KEYS: the key. ARGV: the place of a header's last byte.
PEEK: Final = b"""
local head = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
if type(head) == 'table' then return head end
local left = redis.pcall('PTTL', KEYS[1])
if type(left) == 'table' then return left end
return {left ~= -2 and head, string.format('%.0f', left)}
"""

# KEYS: the key. ARGV: the size that a value may have, the header of a number, the white space after
# JSON or "", the header of other bare values or "". A bare value gets one of them, with a version that
# is unique to this read. A client that stores the same value again stores it bare, so `cas` sees the
# difference. The value stays as it is if it would be too large or cannot be stored.
GETS: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) ~= 'string' or string.byte(old, 1) == 193 then return old end
local new
if #old <= 640 and (old == '0' or string.find(old, '^%-?[1-9]%d*$')) then new = ARGV[2] .. old
elseif ARGV[3] ~= '' and (#old < 64 or string.find(string.sub(old, -64), '[^ \\t]')) then
  new = old .. ARGV[3]
elseif ARGV[4] ~= '' then new = ARGV[4] .. old
else return old end
if #new > tonumber(ARGV[1]) then return old end
local stored = redis.pcall('SET', KEYS[1], new, 'KEEPTTL')
return stored.err and old or new
"""

# KEYS: the key. ARGV: the digest that the value must have, the new value, the words for its expiry.
COMPARE_AND_SET: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if not old then return false end
if type(old) == 'table' then return old end
if redis.sha1hex(old) ~= ARGV[1] then return 0 end
local stored = redis.pcall('SET', KEYS[1], ARGV[2], unpack(ARGV, 3))
return stored.err and stored or 1
"""

# KEYS: the key. ARGV: the stub, its ttl in ms.
GET_OR_STUB: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if old then return old end
local stored = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return stored.err and stored or false
"""

# KEYS: the key. ARGV: the digest that the value must have, a ttl in ms.
RENEW: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
if not old or redis.sha1hex(old) ~= ARGV[1] then return 0 end
return redis.pcall('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: the key. ARGV: the digest that the value must have.
DELETE_CAS: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
if not old or redis.sha1hex(old) ~= ARGV[1] then return 0 end
return redis.pcall('DEL', KEYS[1])
"""

# KEYS: the key. ARGV: the value that it must have, with a version of 0 in its header.
COMPARE_AND_DELETE: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
local bare = old
if type(old) == 'string' and string.byte(old, 1) == 193 then
  bare = string.sub(old, 1, 2) .. '\\0\\0\\0\\0\\0\\0\\0\\0' .. string.sub(old, 11)
end
if bare ~= ARGV[1] then return 0 end
return redis.pcall('DEL', KEYS[1])
"""

# KEYS: the key. ARGV: the value that it must have, as above, and a ttl in ms.
COMPARE_AND_EXPIRE: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
local bare = old
if type(old) == 'string' and string.byte(old, 1) == 193 then
  bare = string.sub(old, 1, 2) .. '\\0\\0\\0\\0\\0\\0\\0\\0' .. string.sub(old, 11)
end
if bare ~= ARGV[1] then return 0 end
return redis.pcall('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: the key. PERSIST alone answers 0 both for a key without an expiry and for a missing key.
PERSIST: Final = b"""
local done = redis.pcall('PERSIST', KEYS[1])
if done == 1 or type(done) == 'table' then return done end
return redis.pcall('EXISTS', KEYS[1])
"""
