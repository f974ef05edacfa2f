local look_back, previous, ttl = ARGV[1], ARGV[2], ARGV[3]
local policy, most, last = ARGV[4], tonumber(ARGV[5]), ARGV[#ARGV]

-- The elements were made after the previous append, which is not pushed again. If its
-- entry is still the last one, they are not in the session, and no search is needed.
local absent = false
if previous ~= '' then
  local tail = redis.pcall('LINDEX', KEYS[1], '-1')
  absent = not tail or type(tail) == 'string' and tail:sub(-#previous) == previous
end

if not absent then
  -- All elements are pushed together, so the search is for the last one.
  local found = redis.pcall('LPOS', KEYS[1], last, 'RANK', '-1', 'MAXLEN', look_back)
  if type(found) == 'table' and found.err:find('Unknown.-command called from') then
    -- Before Redis 6.0.6.
    local tail = redis.pcall('LRANGE', KEYS[1], -look_back, -1)
    if tail.err then return tail end
    found = false
    for _, entry in ipairs(tail) do found = found or entry == last end
  end
  if type(found) == 'table' then return found end
  if found then return redis.pcall('LLEN', KEYS[1]) end
end

local expires = policy == 'sliding'
if policy == 'fixed' then
  local left = redis.pcall('TTL', KEYS[1])
  if type(left) == 'table' then return left end
  expires = left < 0
end

if redis.acl_check_cmd then
  if expires and not redis.acl_check_cmd('EXPIRE', KEYS[1], ttl) then
    return redis.error_reply('NOPERM this user has no permissions to run EXPIRE')
  end
  if most > 0 and not redis.acl_check_cmd('LTRIM', KEYS[1], -most, -1) then
    return redis.error_reply('NOPERM this user has no permissions to run LTRIM')
  end
else
  -- Before Redis 7 only running a command shows whether it is permitted.
  local trimmed = most > 0 and redis.pcall('LTRIM', KEYS[1], 0, -1)
  if trimmed and trimmed.err then return trimmed end
  local renewed = expires and redis.pcall('EXPIRE', KEYS[1], ttl)
  if type(renewed) == 'table' then return renewed end
end

local length
if #ARGV == 6 then
  -- Most appends have one element, and unpack() is slow.
  length = redis.pcall('RPUSH', KEYS[1], last)
  if type(length) == 'table' then return length end
else
  -- unpack() takes a few thousand values at most.
  for first = 6, #ARGV, 1000 do
    length = redis.pcall('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
    if type(length) == 'table' then return length end
  end
end
if most > 0 and length > most then
  redis.call('LTRIM', KEYS[1], -most, -1)
  length = most
end
if expires then redis.call('EXPIRE', KEYS[1], ttl) end
return length
