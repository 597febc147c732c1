import { render } from '@testing-library/react'
import { type UserEvent, userEvent } from '@testing-library/user-event'
import { StrictMode } from 'react'
import { App } from '~/app/App'
import { redirect } from '~/lib/router'
import { Session } from '~/lib/session'

/** Load the site at an address, as a browser does. Returns the hands of its user. */
export function openApp(address: string): UserEvent {
  redirect(address)
  render(
    <StrictMode>
      <App session={new Session()} />
    </StrictMode>,
  )
  return userEvent.setup({ delay: null })
}
