-- Takes a device for a node, unless another has it or a modification of FifoQ runs on it.
-- ARGV[3] node, [4] its life, [5] device. Answer: the lease's epoch, or ''.
local node, life, device = ARGV[3], ARGV[4], ARGV[5]
local n = call('HMGET', P .. 'node:' .. node, 'life', 'alive', 'capacity', 'devices')
if n[1] ~= life or n[2] ~= '1' then return answer('') end
local key = P .. 'device:' .. device
local v = call('HMGET', key, 'node', 'epoch', 'writer', 'ready', 'queued')
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
if v[2] then return answer(v[1] == node and v[2] or '') end
if v[1] and v[1] ~= node then return answer('') end
if n[4] ~= '1' then return answer('') end
if v[3] or call('SCARD', P .. 'leases:' .. node) >= tonumber(n[3]) then return answer('') end
local epoch = next_epoch()
call('HSET', key, 'node', node, 'epoch', epoch)
if v[4] then
  call('HDEL', key, 'ready')
  call('SREM', P .. 'ready', device)
end
call('SADD', P .. 'leases:' .. node, device)
call('HSET', HOST_MAP, device, node)
if PLACED and tonumber(v[5] or 0) == 0 then
  call('SADD', P .. 'idle:' .. node, device)
  call('HSET', key, 'idle', 1)
end
if v[1] then
  call('SREM', P .. 'given:' .. node, device)
elseif not PLACED then
  -- The others are told anew when it comes free.
  for _, other in ipairs(live('devices')) do call('SREM', P .. 'wake:' .. other, 'd:' .. device) end
end
return answer(epoch)
