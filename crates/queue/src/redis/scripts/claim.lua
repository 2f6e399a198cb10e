-- Takes the next job of a device's own queue.
-- ARGV[3] node, [4] device, [5] the lease's epoch, [6] ticket by which a lost answer is taken back.
-- Answer: epoch of the claim, the job and its record, or nothing.
local node, device, lease, ticket = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local v = call('HMGET', P .. 'device:' .. device, 'node', 'epoch', 'pinned', 'writer', 'fifo', 'queued')
if v[1] ~= node or v[2] ~= lease then return answer() end
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
if v[3] or v[4] or tonumber(v[6] or 0) == 0 or call('HGET', P .. 'node:' .. node, 'alive') ~= '1' then
  return answer()
end
local h = call('ZRANGE', P .. 'queue:' .. device, 0, 0, 'WITHSCORES')
if not h[1] then return answer() end
local order = tonumber(h[2])
local m = tonumber(call('ZRANGE', P .. 'changes:' .. device, 0, 0, 'WITHSCORES')[2])
if m == order then
  local f = tonumber(call('ZRANGE', P .. 'fifo:' .. device, 0, 0, 'WITHSCORES')[2])
  if v[5] or (f and f < order) then return answer() end
elseif m and m < order then
  return answer()
end
return answer(start(h[1], node, 'pinned', ticket))
