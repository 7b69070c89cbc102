"""What Redis is asked to do in one step that it has no command for, in Lua.

Each script is sent whole with every call, by `EVAL`. `EVALSHA` would save 2 µs of the server's
time, but needs a second round trip whenever the server has forgotten the script, and holds up
everything behind it on a shared connection meanwhile.

Errors are caught and returned, for what Redis 6.2 raises out of a script has lost its code. All
numbers are handled as text: Lua's own are doubles, exact only up to 2**53.
"""

from __future__ import annotations

from typing import Final

# KEYS: the counter. ARGV: the step. INCRBY alone would make a counter, and count below zero.
# A number that `GETS` has read has a header in front, which INCRBY does not take.
COUNT: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if not old then return false end
if type(old) == 'table' then return old end
if string.sub(old, 1, 2) == '\\193\\3' then
  old = string.sub(old, 11)
  local bared = redis.pcall('SET', KEYS[1], old, 'KEEPTTL')
  if bared.err then return bared end
end
if string.sub(old, 1, 1) == '-' then
  return redis.error_reply('ERR value is not an integer or out of range')
end
local new = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(new) == 'table' then return new end
if new < 0 then
  local stopped = redis.pcall('SET', KEYS[1], '0', 'KEEPTTL')
  return stopped.err and stopped or '0'
end
return redis.pcall('GET', KEYS[1])
"""

# KEYS: the key. ARGV: the header of a number, the white space after JSON or "". What stands bare gets
# one of them, with a version that no other write has: whoever stores the same value again stores it
# without, and `cas` sees the difference. The value stays as it is where it cannot be stored.
GETS: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) ~= 'string' or string.byte(old, 1) == 193 then return old end
local new
if #old <= 640 and (old == '0' or string.find(old, '^%-?[1-9]%d*$')) then new = ARGV[1] .. old
elseif ARGV[2] ~= '' and (#old < 64 or string.find(string.sub(old, -64), '[^ \\t]')) then
  new = old .. ARGV[2]
else return old end
local stored = redis.pcall('SET', KEYS[1], new, 'KEEPTTL')
return stored.err and old or new
"""

# KEYS: the key. ARGV: the digest it must have, what to store, its life in ms or "".
COMPARE_AND_SET: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if not old then return false end
if type(old) == 'table' then return old end
if redis.sha1hex(old) ~= ARGV[1] then return 0 end
local stored
if ARGV[3] == '' then stored = redis.pcall('SET', KEYS[1], ARGV[2])
else stored = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return stored.err and stored or 1
"""

# KEYS: the key. ARGV: the stub, its life in ms.
GET_OR_STUB: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if old then return old end
local stored = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return stored.err and stored or false
"""

# KEYS: the key. ARGV: the digest it must have, a life in ms.
RENEW: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
if not old or redis.sha1hex(old) ~= ARGV[1] then return 0 end
return redis.pcall('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: the key. ARGV: the digest it must have.
DELETE_CAS: Final = b"""
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then return old end
if not old or redis.sha1hex(old) ~= ARGV[1] then return 0 end
return redis.pcall('DEL', KEYS[1])
"""

# KEYS: the key. ARGV: what it must hold; the version behind its header (`core.values.flags`) is 0 there.
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

# KEYS: the key. ARGV: what it must hold, as above, a life in ms.
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

# KEYS: the key. PERSIST alone says 0 of a key that has no expiry, as of one that is not there.
PERSIST: Final = b"""
local done = redis.pcall('PERSIST', KEYS[1])
if done == 1 or type(done) == 'table' then return done end
return redis.pcall('EXISTS', KEYS[1])
"""
