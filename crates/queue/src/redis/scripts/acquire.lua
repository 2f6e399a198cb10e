-- Takes a device for a node, unless another has it or a modification of FifoQ runs on it.
-- ARGV[3] node, [4] its life, [5] device. Answer: the lease's epoch, or ''.
local node, life, device = ARGV[3], ARGV[4], ARGV[5]
local n = call('HMGET', P .. 'node:' .. node, 'life', 'alive', 'capacity', 'devices')
if n[1] ~= life or n[2] ~= '1' then return answer('') end
local d = dev(device)
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
if d.epoch then return answer(d.node == node and d.epoch or '') end
if d.node and d.node ~= node then return answer('') end
if n[4] ~= '1' then return answer('') end
if d.writer or call('SCARD', P .. 'leases:' .. node) >= tonumber(n[3]) then return answer('') end
local given, epoch = d.node, next_epoch()
set(d, 'node', node)
set(d, 'epoch', epoch)
if d.ready then
  set(d, 'ready', false)
  call('SREM', P .. 'ready', device)
end
call('SADD', P .. 'leases:' .. node, device)
call('HSET', HOST_MAP, device, node)
if PLACED and d.queued == 0 then
  call('SADD', P .. 'idle:' .. node, device)
  set(d, 'idle', '1')
end
if given then
  call('SREM', P .. 'given:' .. node, device)
elseif not PLACED then
  -- The others are told anew when it comes free.
  for _, other in ipairs(live('devices')) do call('SREM', P .. 'wake:' .. other, 'd:' .. device) end
end
return answer(epoch)
