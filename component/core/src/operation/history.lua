local entries = redis.pcall('LRANGE', KEYS[1], ARGV[1], ARGV[2])
if entries.err then return entries end
local total = redis.pcall('LLEN', KEYS[1])
if type(total) == 'table' then return total end
local left = redis.pcall('TTL', KEYS[1])
if type(left) == 'table' then return left end
return {entries, total, left}
