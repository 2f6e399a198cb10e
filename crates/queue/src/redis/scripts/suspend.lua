-- A node takes nothing new; what it holds it keeps until it gives it back.
-- ARGV[3] node, [4] its life. Answer: '1', or '0' when it is unknown.
local node, life = ARGV[3], ARGV[4]
local key = P .. 'node:' .. node
if call('HGET', key, 'life') ~= life then return answer('0') end
call('HSET', key, 'devices', 0, 'fifo', 0)
call('SREM', P .. 'live:devices', node)
call('SREM', P .. 'live:fifo', node)
live_nodes = {}
-- What it was told of and has not taken is for others.
call('SREM', P .. 'wake:' .. node, 'fifo')
for _, device in ipairs(call('SMEMBERS', P .. 'given:' .. node)) do
  call('SREM', P .. 'given:' .. node, device)
  call('SREM', P .. 'wake:' .. node, 'd:' .. device)
  call('HDEL', P .. 'device:' .. device, 'node')
  unmap(device)
  refresh(device)
end
if not PLACED then
  for _, device in ipairs(call('SMEMBERS', P .. 'ready')) do
    call('SREM', P .. 'wake:' .. node, 'd:' .. device)
    refresh(device)
  end
end
if call('EXISTS', P .. 'fifo-ready') == 1 then tell_fifo() end
return answer('1')
