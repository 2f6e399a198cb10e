-- A node that drains: nothing new is offered to it or given to it; it keeps what it holds.
-- ARGV[3] node, [4] its life. Answer: '1' when it is this life's.
local node, life = ARGV[3], ARGV[4]
local key = P .. 'node:' .. node
if call('HGET', key, 'life') ~= life then return answer('0') end
call('HSET', key, 'devices', 0, 'fifo', 0)
call('SREM', P .. 'live:devices', node)
call('SREM', P .. 'live:fifo', node)
live_nodes = {}
local wake = P .. 'wake:' .. node
call('SREM', wake, 'fifo')
-- What it was given and has not taken goes to others.
for _, device in ipairs(call('SMEMBERS', P .. 'given:' .. node)) do
  call('SREM', P .. 'given:' .. node, device)
  set(dev(device), 'node', false)
  unmap(device)
  refresh(device)
end
-- So does what it was offered.
for _, word in ipairs(call('SMEMBERS', wake)) do
  local device = string.sub(word, 1, 2) == 'd:' and string.sub(word, 3)
  if device and dev(device).node ~= node then
    call('SREM', wake, word)
    refresh(device)
  end
end
if call('EXISTS', P .. 'fifo-ready') == 1 then tell_fifo() end
return answer('1')
