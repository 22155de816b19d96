// Light, whatever the browser prefers, since frames and plots are read on white; Escape is STOP; a digit presses the action of its number.
function motorbabbleStop() {
  fetch('stop', {method: 'POST'})
}
function motorbabbleIsLight() {
  document.body.classList.remove('dark')
}
document.addEventListener('DOMContentLoaded', () => {
  motorbabbleIsLight()
  new MutationObserver(motorbabbleIsLight).observe(document.body, {attributes: true, attributeFilter: ['class']})
})
document.addEventListener('keydown', event => {
  if (event.key === 'Escape') return motorbabbleStop()
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest('input, textarea, select, [contenteditable], [role=listbox]')) return
  const turn = {ArrowLeft: '#moment_back', ArrowRight: '#moment_on'}[event.key]
  if (turn && document.querySelector(turn)?.offsetParent) document.querySelector(turn).click()
  if (/^[1-9]$/.test(event.key)) document.querySelector('#press_' + event.key)?.click()
})
